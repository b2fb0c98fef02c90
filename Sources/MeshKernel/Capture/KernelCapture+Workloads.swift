internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
public import MeshModel
internal import Synchronization

extension KernelCapture {
    /// Captures a workload, or brings its capture up to date (other addresses, new listeners): calling it twice is the
    /// same as calling it once. A namespace that an earlier daemon captured is taken over without a gap. When it throws,
    /// a workload that was not captured before is not captured now.
    /// - Parameters:
    ///   - namespace: its network namespace; the descriptor is duplicated.
    ///   - cookie: the namespace's cookie (SO_NETNS_COOKIE of any socket made inside).
    ///   - addresses: all of the workload's addresses, 1…8; the first of each family becomes the source of captured
    ///     connections. Connections of a family without an address are refused (ENETUNREACH).
    ///   - scope: what of its traffic is captured.
    ///   - listeners: made inside the namespace, listening, `IP_TRANSPARENT` set.
    @discardableResult
    public func attach(
        _ workload: ObjectName, namespace: Int32, cookie: UInt64, addresses: [IPAddress],
        scope: CaptureScope = CaptureScope(), listeners: CaptureListeners
    ) throws(KernelError) -> CaptureHandle {
        guard !addresses.isEmpty, addresses.count <= CaptureConstants.maximumAddresses, cookie != 0 else {
            throw KernelError(
                .badRequest, "capturing a workload", at: "\(workload)",
                cause: addresses.isEmpty || addresses.count > CaptureConstants.maximumAddresses
                    ? "it has \(addresses.count) addresses" : "its namespace has no cookie",
                remedy: "give it 1 to \(CaptureConstants.maximumAddresses) addresses and a network namespace")
        }
        let descriptor = try Descriptor(duplicating: namespace, what: "keeping the namespace", at: "\(workload)")
        return try state.withLock { state throws(KernelError) in
            try requireOpen(state)
            // The same name in a new namespace: the old capture ends first.
            if let old = state.workloads[workload], old.handle.cookie != cookie {
                try detach(old, from: &state)
            }
            if let other = state.workloads.values.first(where: {
                $0.handle.cookie == cookie && $0.handle.workload != workload && $0.namespace != nil
            }) {
                throw KernelError(
                    .alreadyCaptured, "capturing a workload", at: "\(workload)",
                    cause: "its network namespace is that of \(other.handle.workload)",
                    remedy: "give every workload its own network namespace")
            }
            guard let name = culvert_name(workload) else {
                throw KernelError(
                    .badRequest, "capturing a workload", at: "\(workload)", cause: "its name is too long",
                    remedy: "use a namespace of 63 and a name of 253 characters at most")
            }
            let existing = objects.pods.value(for: cookie)
            let slot = if let existing { existing.slot } else { try freeSlot(in: state) }
            let unplaced: Int
            do throws(KernelError) {
                try objects.names.set(name, for: cookie)
                witness(.named)
                unplaced = try objects.scopes.set(scope, of: slot, place: "\(workload)")
                witness(.scoped)
                try capture(
                    cookie, existing, slot: slot, namespace: descriptor, addresses: addresses, listeners: listeners,
                    place: "\(workload)")
            } catch {
                if existing == nil { objects.release(cookie, pins: pins, namespace: descriptor) }
                throw error
            }
            // An earlier daemon knew the namespace by another name: there is one entry for it all the same.
            state.workloads = state.workloads.filter { $0.value.handle.cookie != cookie || $0.key == workload }
            let adopted = state.workloads[workload]?.handle.adopted ?? (existing != nil)
            let handle = CaptureHandle(
                workload: workload, cookie: cookie, slot: slot, adopted: adopted, unplaced: unplaced)
            state.workloads[workload] = Record(handle: handle, namespace: descriptor)
            return handle
        }
    }

    /// Ends the capture of a workload and puts its namespace back as it was found. Unknown names are no error.
    public func detach(_ workload: ObjectName) throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            guard let record = state.workloads[workload] else { return }
            try detach(record, from: &state)
        }
    }

    /// Lets go what an earlier daemon left: its workloads that are not in `wanted` and were not attached again. Call it
    /// once the first configuration has been applied. A wanted workload that could not be attached yet stays captured,
    /// that is, refused rather than in clear text.
    /// - Returns: the workloads let go.
    @discardableResult
    public func sweep(keeping wanted: Set<ObjectName>) -> [ObjectName] {
        state.withLock { state in
            let stale = state.workloads.values.filter { $0.namespace == nil && !wanted.contains($0.handle.workload) }
            for record in stale {
                state.workloads[record.handle.workload] = nil
                endDirect(of: record, in: &state)
                objects.release(record.handle.cookie, pins: pins)
            }
            let slots = Set(state.workloads.values.map(\.handle.slot))
            for pin in pins.staleLookupLinks(keeping: slots) { unlink(pin) }
            return stale.map(\.handle.workload).sorted()
        }
    }

    private func requireOpen(_ state: State) throws(KernelError) {
        if state.closed {
            throw KernelError(
                .badRequest, "using capture", at: options.nodeName, cause: "it was uninstalled or handed over",
                remedy: "make a new one")
        }
    }

    private func freeSlot(in state: State) throws(KernelError) -> UInt32 {
        let used = Set(state.workloads.values.map(\.handle.slot))
        if let slot = (0..<UInt32(CaptureConstants.maximumWorkloads)).first(where: { !used.contains($0) }) {
            return slot
        }
        throw KernelError(
            .limitReached, "capturing a workload", at: options.nodeName,
            cause: "\(used.count) workloads are captured already", remedy: "spread the workloads over more nodes")
    }
}

extension KernelCapture {
    /// Order: remember the settings; routes and settings (harmless without marks); listeners; inbound; outbound last.
    private func capture(
        _ cookie: UInt64, _ existing: culvert_pod?, slot: UInt32, namespace: Descriptor, addresses: [IPAddress],
        listeners: CaptureListeners, place: String
    ) throws(KernelError) {
        var inode: UInt64 = 0
        guard mesh_inode(namespace.raw, &inode) == 0 else {
            throw KernelError(
                .namespaceMissing, "reading the namespace", at: place, code: EBADF, remedy: "open it again by its path")
        }
        // Whoever is on the host's network shares the node's own namespace; capturing it would capture the node.
        guard inode != ownNamespace else {
            throw KernelError(
                .badRequest, "capturing a workload", at: place, cause: "its network namespace is the node's own",
                remedy: "leave workloads on the host's network out of the mesh (protocol: TCP)")
        }
        try refuseForeignLookup(namespace, slot: slot, place: place)
        var pod = existing ?? culvert_pod()
        pod.slot = slot
        pod.namespace_inode = UInt32(truncatingIfNeeded: inode)
        let loopback = try inNamespace(namespace.raw, place: place) { () throws(KernelError) -> UInt32 in
            let loopback = if_nametoindex("lo")
            if existing == nil {
                pod.settings = try NamespaceSettings.read()
                try objects.pods.set(pod, for: cookie)
                witness(.settingsSaved)
            }
            try NamespaceSettings.captured.apply()
            witness(.settingsChanged)
            try CaptureRoutes.install(addresses, loopback: loopback, place: place)
            witness(.routed)
            return loopback
        }
        try objects.statistics.make(slot)
        try objects.setListeners(listeners, slot: slot)
        witness(.listenersSet)
        let own = addresses.map(\.abi)
        let program = try objects.loadLookup(
            culvert_lookup_config(slot: slot, loopback: loopback, own: own, level: level))
        _ = try BPFLink.attach(
            program, to: namespace.raw, target: inode, type: BPF_SK_LOOKUP, pin: pins.lookupLink(slot: slot),
            what: "the lookup of \(place)")
        witness(.lookupAttached)
        objects.setEndpoints(own, of: slot, before: existing.map(\.addresses) ?? [])
        witness(.endpointsSet)
        pod.setOwn(own)
        pod.flags = CULVERT_POD_ACTIVE.rawValue
        if addresses.contains(where: \.isIPv4) { pod.flags |= CULVERT_POD_IPV4.rawValue }
        if addresses.contains(where: { !$0.isIPv4 }) { pod.flags |= CULVERT_POD_IPV6.rawValue }
        try objects.pods.set(pod, for: cookie)
        witness(.active)
    }

    /// Two daemons in one namespace would steer against each other.
    private func refuseForeignLookup(_ namespace: Descriptor, slot: UInt32, place: String) throws(KernelError) {
        let mine = BPFLink.open(pins.lookupLink(slot: slot)).flatMap {
            BPFLink.info($0, type: BPF_SK_LOOKUP)?.programID
        }
        guard case .success(let ids) = BPFLink.programs(at: namespace.raw, type: BPF_SK_LOOKUP) else { return }
        for id in ids where id != mine && BPFLink.programName(id) == CaptureObjects.lookupName {
            throw KernelError(
                .alreadyCaptured, "capturing a workload", at: place,
                cause: "its namespace is captured by another node's daemon (program \(id))",
                remedy: "list the workload on one node only")
        }
    }

    private func detach(_ record: Record, from state: inout State) throws(KernelError) {
        state.workloads[record.handle.workload] = nil
        endDirect(of: record, in: &state)
        if let error = objects.release(record.handle.cookie, pins: pins, namespace: record.namespace) { throw error }
    }
}

extension CaptureObjects {

    /// The reverse of `capture`: outbound first, then inbound, then routes and settings. A namespace that nothing names
    /// any more took its routes with it.
    @discardableResult
    func release(_ cookie: UInt64, pins: Pins, namespace: Descriptor? = nil) -> KernelError? {
        defer {
            pods.remove(cookie)
            names.remove(cookie)
        }
        guard let pod = pods.value(for: cookie) else { return nil }
        var quiet = pod
        quiet.flags &= ~CULVERT_POD_ACTIVE.rawValue
        try? pods.set(quiet, for: cookie)
        setEndpoints([], of: pod.slot, before: pod.addresses)
        scopes.remove(pod.slot)
        dns.pods.remove(cookie)
        unlink(pins.lookupLink(slot: pod.slot))
        statistics.retire(pod.slot)
        for role in ListenerRole.allCases { listeners.remove(role.key(slot: pod.slot)) }
        return PinnedVersion.restore(pod, cookie: cookie, namespace: namespace)
    }
}
