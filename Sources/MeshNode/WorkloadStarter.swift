internal import Logging
internal import MeshIdentity
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshTLS

/// Starts one workload: certificate, listeners on every core, capture.
struct WorkloadStarter: Sendable {
    let plane: DataPlane
    let svids: SVIDStore
    let logger: Logger

    /// What starting a workload takes.
    struct Ready {
        let workload: Workload
        let namespace: NetworkNamespace
        let context: TLSContext
    }

    func prepare(_ workload: Workload) async throws -> Ready {
        guard let path = workload.netns else { throw NodeError("it has no netns") }
        let namespace = try NetworkNamespace(path: path)
        let svid = try await svids.svid(for: workload.identity)
        return Ready(workload: workload, namespace: namespace, context: try TLSContext(svid: svid))
    }

    func start(_ ready: Ready, _ capture: NodeCapture) async throws {
        let listeners: PodListeners
        do {
            listeners = try PodListeners(in: ready.namespace, cores: plane.coreCount)
        } catch let taken as PodListeners.PortTaken {
            throw NodeError(
                "port \(taken.port) cannot be had inside the workload (\(taken.cause)); the proxy needs 15001, 15006 and "
                    + "15008 there: stop what listens on it")
        }
        // Only when every core accepts may connections be steered to them.
        add(ready)
        try await accept(ready, listeners)
        do {
            try attach(ready, capture, listeners)
        } catch {
            plane.post { $0.remove(ready.workload.name) }
            throw error
        }
    }

    /// Goes on with the listeners of a daemon that still accepts on them. Steering comes first: a failure then costs no
    /// connection.
    func start(_ ready: Ready, _ capture: NodeCapture, on handed: InheritedListeners) async throws {
        let listeners = try PodListeners(handed, cores: plane.coreCount)
        do {
            try attach(ready, capture, listeners)
        } catch {
            listeners.close()
            throw error
        }
        try await accept(ready, listeners)
    }

    private func attach(_ ready: Ready, _ capture: NodeCapture, _ listeners: PodListeners) throws {
        let workload = ready.workload
        let outcome = try capture.attach(
            workload.name, namespace: ready.namespace.descriptor, addresses: workload.addresses, scope: workload.scope,
            listeners: listeners.first)
        reportScope(of: workload, unplaced: outcome.unplaced)
    }

    /// Makes the workload known to every core.
    func add(_ ready: Ready) {
        plane.post { $0.add(ready.workload, namespace: ready.namespace, tls: ready.context) }
    }

    /// Has every core accept on its listeners; returns when all do. Where one cannot, none does: the kernel spreads
    /// connections over all that listen, and some would wait for ever.
    private func accept(_ ready: Ready, _ listeners: PodListeners) async throws {
        let name = ready.workload.name
        for index in 0..<plane.coreCount {
            do {
                try await plane.listen(on: listeners.ofCore(index), for: name, core: index)
            } catch {
                listeners.close(fromCore: index + 1)
                plane.post { $0.remove(name) }
                // The next attempt needs the ports.
                _ = await plane.openConnections()
                throw NodeError("core \(index) cannot accept on its listeners: \(error)")
            }
        }
    }

    /// What an operator keeps out of the mesh is said aloud: nobody should learn it from a packet trace.
    func reportScope(of workload: Workload, unplaced: Int) {
        if !workload.scope.isWhole {
            logger.warning(
                """
                workload \(workload.name) has traffic in clear text and without policy, as its annotations say: \
                captured is \(workload.scope)
                """)
        }
        if unplaced > 0 {
            logger.warning(
                "\(unplaced) exclusions of \(workload.name) found no room in the kernel's map: that traffic is captured"
            )
        }
    }
}
