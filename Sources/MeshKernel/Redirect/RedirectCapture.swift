internal import CMeshSystem
internal import Glibc
internal import MeshModel
internal import Synchronization

/// Capture by rules of the packet filter: both ways at level L3, without eBPF; inbound alone at L2, where connect hooks
/// lead what goes out to the same listener.
///
///     L3: connect() ─▶ SYN ─▶ nat output: to OWN:15001 ─▶ outbound listener  (original destination: SO_ORIGINAL_DST)
///     L2: connect() ─▶ hook: to OWN:15001 ─▶ SYN ─▶ outbound listener        (the same, answered by a hook)
///     SYN from outside ─▶ nat prerouting: to :15006 ─▶ inbound listener      (port 15008 as it is: tunnel listener)
///     question to a DNS server ─▶ nat output: to OWN:15053 ─▶ DNS server     (original destination: `ConnectionTable`)
///
/// Invariants:
/// - Rules stay when the daemon dies; a port without a listener refuses, so nothing leaves in clear text. Hooks go with
///   their daemon; what comes by none of them is refused by the rules.
/// - A namespace is ours when it has our table and there is a record of it; the record is written before anything in the
///   namespace changes. A table without a record is another daemon's, a record without a table stands for nothing.
/// - The proxy's own sockets inside carry a mark: `CaptureConstants.proxyMark`, and towards the application, over lo,
///   `upstreamMark` with the routes and settings that every level has.
/// - Connections that were there before are not touched.
final class RedirectCapture: Sendable {
    /// Why DNS by UDP cannot be captured here; nil: it can.
    let dnsObstacle: String?
    private let options: CaptureOptions
    private let records: RedirectRecords
    private let witness: RedirectWitness
    private let state: Mutex<State>

    private struct State: Sendable {
        var workloads: [ObjectName: Entry] = [:]
        /// nil at L3.
        var hooks: ConnectRewrite?
        /// nil: another daemon has the node.
        var lock: NodeLock?
        var closed = false
    }

    private struct Entry: Sendable {
        let record: RedirectRecord
        /// What the rules are made of; nil: an earlier daemon made them.
        var rules: NftRules?
        /// nil: an earlier daemon captured it, and no `attach` has named its namespace yet.
        let namespace: Descriptor?
        /// At L2, once an `attach` has named its namespace.
        var hook: Hook?
    }

    /// How the connect hooks know a workload.
    private struct Hook: Sendable {
        let cookie: UInt64
        let slot: UInt32
    }

    /// Takes the node's lock and finds what an earlier daemon of the node left.
    /// - Parameters:
    ///   - level: L2 or L3.
    ///   - isRemoval: only to uninstall: no hooks are attached.
    ///   - witness: told after each step of a capture.
    init(
        options: CaptureOptions, level: CaptureLevel, isRemoval: Bool = false,
        witness: @escaping RedirectWitness = { _ in }
    ) throws(KernelError) {
        precondition(level >= .l2, "other levels have no rules")
        // For its check of the node's name, which becomes a path here as well.
        _ = try Pins(options)
        _ = try NftProgram.path()
        let lock = try NodeLock.take(options, pins: nil)
        let records = RedirectRecords(options, level: level)
        try records.make()
        self.options = options
        self.records = records
        self.witness = witness
        dnsObstacle = isRemoval ? nil : DNSRulesProbe.obstacle()
        var found = State(lock: lock)
        for record in records.load() {
            if findNamespace(inode: UInt32(truncatingIfNeeded: record.inode)) == nil {
                records.remove(record.inode)
            } else {
                found.workloads[record.workload] = Entry(record: record, rules: nil, namespace: nil)
            }
        }
        if level == .l2, !isRemoval { found.hooks = try ConnectRewrite(options: options) }
        state = Mutex(found)
    }

    /// What the connect hooks counted, of all workloads; nil where there are none.
    func statistics() -> CaptureStatistics? { state.withLock { $0.hooks?.statistics() } }

    var workloads: [ObjectName] { state.withLock { $0.workloads.keys.sorted() } }

    var adoptable: [ObjectName] {
        state.withLock { state in state.workloads.filter { $0.value.namespace == nil }.keys.sorted() }
    }

    func attach(
        _ workload: ObjectName, namespace: Descriptor, addresses: [IPAddress], scope: CaptureScope
    ) throws(KernelError) -> CaptureOutcome {
        var inode: UInt64 = 0
        guard mesh_is_network_namespace(namespace.raw) == 1, mesh_inode(namespace.raw, &inode) == 0 else {
            throw KernelError(
                .namespaceMissing, "capturing a workload", at: "\(workload)",
                cause: "its descriptor is no network namespace", remedy: "open it again by its path")
        }
        return try state.withLock { state throws(KernelError) in
            if state.closed {
                throw KernelError(
                    .badRequest, "using capture", at: options.nodeName, cause: "it was uninstalled or handed over",
                    remedy: "make a new one")
            }
            // The same name in a new namespace: the old capture ends first.
            if let old = state.workloads[workload], old.record.inode != inode {
                state.workloads[workload] = nil
                try release(old, state.hooks)
            }
            let holder = state.workloads.first { $0.value.record.inode == inode }
            if let holder, holder.key != workload, holder.value.namespace != nil {
                throw KernelError(
                    .alreadyCaptured, "capturing a workload", at: "\(workload)",
                    cause: "its network namespace is that of \(holder.key)",
                    remedy: "give every workload its own network namespace")
            }
            guard state.workloads.count < CaptureConstants.maximumWorkloads || holder != nil else {
                throw KernelError(
                    .limitReached, "capturing a workload", at: options.nodeName,
                    cause: "\(state.workloads.count) workloads are captured already",
                    remedy: "spread the workloads over more nodes")
            }
            let (hook, unplaced) = try activate(
                workload, namespace, addresses, scope, in: state, known: holder?.value.hook)
            let record: RedirectRecord
            let rules: NftRules
            let adopted: Bool
            do throws(KernelError) {
                (record, rules, adopted) = try capture(
                    workload, namespace, inode, addresses, scope, hasHooks: hook != nil, holder: holder?.value)
            } catch {
                if let hook, holder?.value.hook == nil { state.hooks?.deactivate(hook.cookie, slot: hook.slot) }
                throw error
            }
            if let holder, holder.key != workload { state.workloads[holder.key] = nil }
            state.workloads[workload] = Entry(record: record, rules: rules, namespace: namespace, hook: hook)
            return CaptureOutcome(adopted: adopted && holder?.value.namespace == nil, unplaced: unplaced)
        }
    }

    /// Hooks first, since the hooks and then the rules see a connection: while both change, one may be refused, none
    /// gets out. The rules are replaced in one step; the connections that they translated stay translated.
    /// - Returns: how many entries found no room in the hooks' maps. What they keep out is captured.
    func setScope(_ scope: CaptureScope, of workload: ObjectName) throws(KernelError) -> Int {
        try state.withLock { state throws(KernelError) in
            guard let entry = state.workloads[workload], let namespace = entry.namespace, var rules = entry.rules,
                rules.scope != scope
            else { return 0 }
            rules.scope = scope
            let place = "\(workload)"
            let unplaced =
                try entry.hook.flatMap { hook throws(KernelError) in
                    try state.hooks?.setScope(scope, slot: hook.slot, place: place)
                } ?? 0
            try replace(rules, of: workload, in: namespace, &state)
            return unplaced
        }
    }

    /// Begins or renews: whoever listens on the proxy's port of DNS inside gets the questions.
    func captureDNS(of workload: ObjectName) throws(KernelError) -> DNSOrigins {
        let place = "\(workload)"
        return try state.withLock { state throws(KernelError) in
            guard let entry = state.workloads[workload], let namespace = entry.namespace, var rules = entry.rules else {
                throw KernelError(
                    .badRequest, "capturing DNS", at: place, cause: "the workload is not captured",
                    remedy: "attach it first")
            }
            let table = try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
                try ConnectionTable(place: place)
            }
            if !rules.capturesDNS {
                rules.capturesDNS = true
                try replace(rules, of: workload, in: namespace, &state)
            }
            return DNSOrigins(table)
        }
    }

    func releaseDNS(of workload: ObjectName) throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            guard let entry = state.workloads[workload], let namespace = entry.namespace, var rules = entry.rules,
                rules.capturesDNS
            else { return }
            rules.capturesDNS = false
            try replace(rules, of: workload, in: namespace, &state)
        }
    }

    func capturesDNS(of workload: ObjectName) -> Bool {
        state.withLock { $0.workloads[workload]?.rules?.capturesDNS ?? false }
    }

    private func replace(
        _ rules: NftRules, of workload: ObjectName, in namespace: Descriptor, _ state: inout State
    ) throws(KernelError) {
        let place = "\(workload)"
        try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
            let counts = try NftProgram.counters(place: place)
            try NftProgram.apply(rules.script(from: counts), what: "installing the rules", place: place)
        }
        state.workloads[workload]?.rules = rules
    }

    /// What hooks and rules of a workload counted; nil: it is not captured, or its namespace cannot be asked.
    func statistics(of workload: ObjectName) -> CaptureStatistics? {
        let (entry, hooks) = state.withLock { state in
            let entry = state.workloads[workload]
            return (entry, entry?.hook.flatMap { state.hooks?.statistics(of: $0.slot) })
        }
        guard let entry,
            let namespace = entry.namespace ?? findNamespace(inode: UInt32(truncatingIfNeeded: entry.record.inode))
        else { return nil }
        let place = "\(workload)"
        let counts = try? inNamespace(namespace.raw, place: place) { () throws(KernelError) in
            try NftProgram.counters(place: place)
        }
        guard let counts else { return nil }
        let ofRules = CaptureStatistics(counted: CaptureEvent.allCases.filter { counts[$0.word] != nil }) {
            counts[$0.word] ?? 0
        }
        return hooks.map { $0 + ofRules } ?? ofRules
    }

    func detach(_ workload: ObjectName) throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            guard let entry = state.workloads.removeValue(forKey: workload) else { return }
            try release(entry, state.hooks)
        }
    }

    /// Lets go what an earlier daemon left and nobody wants.
    func sweep(keeping wanted: Set<ObjectName>) -> [ObjectName] {
        state.withLock { state in
            let stale = state.workloads.filter { $0.value.namespace == nil && !wanted.contains($0.key) }
            for (name, entry) in stale {
                state.workloads[name] = nil
                try? release(entry, state.hooks)
            }
            return stale.keys.sorted()
        }
    }

    /// Gives the node to another daemon; the rules stay.
    func release() {
        state.withLock { state in
            state.closed = true
            state.lock = nil
            // They keep namespaces alive.
            state.workloads.removeAll()
        }
    }

    func uninstall() throws(KernelError) {
        var failure: KernelError?
        for workload in workloads {
            do throws(KernelError) { try detach(workload) } catch { failure = failure ?? error }
        }
        state.withLock { state in
            state.closed = true
            state.hooks?.leave()
            state.hooks = nil
        }
        records.finish()
        NodeLock.removeFiles(options)
        if let failure { throw failure }
    }

    // MARK: One namespace

    /// Before the rules, which refuse what no hook has led to the listener.
    private func activate(
        _ workload: ObjectName, _ namespace: Descriptor, _ addresses: [IPAddress], _ scope: CaptureScope,
        in state: State, known: Hook?
    ) throws(KernelError) -> (Hook?, unplaced: Int) {
        guard let hooks = state.hooks else { return (nil, 0) }
        let place = "\(workload)"
        let used = Set(state.workloads.values.compactMap(\.hook?.slot))
        let hook: Hook
        if let known {
            hook = known
        } else {
            let free = (0..<UInt32(CaptureConstants.maximumWorkloads)).first { !used.contains($0) }
            hook = Hook(cookie: try hooks.cookie(of: namespace, place: place), slot: free ?? 0)
        }
        do throws(KernelError) {
            let unplaced = try hooks.activate(
                hook.cookie, slot: hook.slot, addresses: addresses, scope: scope, place: place)
            witness(.hooked)
            return (hook, unplaced)
        } catch {
            if known == nil { hooks.deactivate(hook.cookie, slot: hook.slot) }
            throw error
        }
    }

    private func capture(
        _ workload: ObjectName, _ namespace: Descriptor, _ inode: UInt64, _ addresses: [IPAddress],
        _ scope: CaptureScope, hasHooks: Bool, holder: Entry?
    ) throws(KernelError) -> (RedirectRecord, NftRules, adopted: Bool) {
        let place = "\(workload)"
        return try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
            let stands = try NftProgram.tableExists(place: place)
            if var record = holder?.record, stands || holder?.namespace != nil {
                record.workload = workload
                try records.save(record)
                return (record, try install(record, addresses, scope, hasHooks, place), true)
            }
            if stands { throw foreign(place) }
            let record = RedirectRecord(
                workload: workload, inode: inode, settings: try .read(), live: LiveConnection.all())
            try records.save(record)
            witness(.recorded)
            do throws(KernelError) {
                try NftProgram.apply(NftRules.claim, what: "adding the table of rules", place: place)
            } catch {
                records.remove(inode)
                throw error
            }
            witness(.claimed)
            do throws(KernelError) {
                return (record, try install(record, addresses, scope, hasHooks, place), false)
            } catch {
                // The failure is what the caller needs to hear, whatever becomes of the rest.
                try? restore(record, place)
                records.remove(inode)
                throw error
            }
        }
    }

    /// Settings and routes are harmless without the rules, so the rules come last, in one step. Whether they capture DNS
    /// is left as it is.
    private func install(
        _ record: RedirectRecord, _ addresses: [IPAddress], _ scope: CaptureScope, _ hasHooks: Bool, _ place: String
    ) throws(KernelError) -> NftRules {
        try NamespaceSettings.captured.apply()
        witness(.settingsChanged)
        try CaptureRoutes.install(addresses, loopback: if_nametoindex("lo"), place: place)
        witness(.routed)
        let counts = try NftProgram.counters(place: place)
        let rules = NftRules(
            addresses: addresses, live: record.live, scope: scope, hasHooks: hasHooks,
            capturesDNS: counts[CaptureEvent.dnsCaptured.word] != nil)
        try NftProgram.apply(rules.script(from: counts), what: "installing the rules", place: place)
        witness(.ruled)
        return rules
    }

    private func restore(_ record: RedirectRecord, _ place: String) throws(KernelError) {
        try NftProgram.apply(NftRules.remove, what: "removing the rules", place: place)
        try CaptureRoutes.remove(loopback: if_nametoindex("lo"), place: place)
        try record.settings.apply()
    }

    /// The record goes only when the namespace is as it was, or is gone and took everything with it.
    private func release(_ entry: Entry, _ hooks: ConnectRewrite?) throws(KernelError) {
        // Last: without rules what goes out is still the proxy's, without hooks it would be refused.
        defer { if let hook = entry.hook { hooks?.deactivate(hook.cookie, slot: hook.slot) } }
        let inode = entry.record.inode
        if let namespace = entry.namespace ?? findNamespace(inode: UInt32(truncatingIfNeeded: inode)) {
            let place = "net:[\(inode)]"
            try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
                // A record without a table stands for nothing: the inode belongs to another namespace by now.
                if try NftProgram.tableExists(place: place) { try restore(entry.record, place) }
            }
        }
        records.remove(inode)
    }

    private func foreign(_ place: String) -> KernelError {
        KernelError(
            .alreadyCaptured, "capturing a workload", at: place,
            cause: "its namespace has a table inet \(NftRules.table) that this node has no record of",
            remedy: "list the workload on one node only; if no daemon captures it, in its namespace: "
                + "nft delete table inet \(NftRules.table)")
    }
}
