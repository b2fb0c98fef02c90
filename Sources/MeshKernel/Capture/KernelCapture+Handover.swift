internal import CMeshABI
internal import Synchronization

/// From one daemon of a node to the next, while both run (decision 6).
extension KernelCapture {
    /// Gives the node to another daemon: its lock is free, and this object writes nothing any more. Hooks, routes and
    /// listeners stay as they are.
    public func release() {
        state.withLock { state in
            state.closed = true
            state.lock = nil
            // They keep namespaces alive.
            state.workloads.removeAll()
        }
    }

    /// The daemon that handed over is gone: only this process is exempt from capture now.
    public func forgetOtherProxies() {
        state.withLock { state in
            guard !state.closed else { return }
            for other in objects.proxyCgroups.keys where other != proxyCgroup.id { objects.proxyCgroups.remove(other) }
        }
    }
}

extension CaptureObjects {
    /// Fills a workload's slot.
    func setListeners(_ sockets: CaptureListeners, slot: UInt32) throws(KernelError) {
        try setListener(sockets.outbound, .outbound, slot: slot)
        try setListener(sockets.inbound, .inbound, slot: slot)
        try setListener(sockets.tunnel, .tunnel, slot: slot)
    }

    /// A place that holds the same socket already is left alone: what need not move cannot go wrong.
    func setListener(_ socket: Int32, _ role: ListenerRole, slot: UInt32) throws(KernelError) {
        let key = role.key(slot: slot)
        if let present = listeners.value(for: key), present == socketCookie(socket) { return }
        try listeners.set(UInt64(UInt32(bitPattern: socket)), for: key)
    }
}
