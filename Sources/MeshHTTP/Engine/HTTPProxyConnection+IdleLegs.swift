internal import MeshModel
internal import MeshRuntime

/// Streams to backends that wait for this client's next request.
///
/// They are never shared between clients: the stream carries the caller's identity, and a server may tie a login to it.
extension HTTPProxyConnection {
    /// Keeps a leg whose response is complete, unless it has anything more to say: bytes nobody asked for, its end.
    func park(_ leg: UpstreamLeg) {
        let isQuiet =
            leg.side.rawCount == 0 && !leg.side.hasEnded && !leg.side.hasOutput && leg.side.writeFailure == nil
            && leg.side.readFailure == nil && !leg.side.fill()
        guard isQuiet, !isDraining else { return leg.side.close() }
        leg.side.releaseIdleBlocks()
        if idleLegs.count == Self.idleLegLimit { idleLegs.removeFirst().side.close() }
        idleLegs.append(leg)
    }

    /// The leg used last: its server is the least likely to have closed it.
    func takeIdleLeg(_ backend: UpstreamLeg.Backend, generation: UInt64) -> UpstreamLeg? {
        idleLegs.removeAll { leg in
            if leg.generation == generation { return false }
            leg.side.close()
            return true
        }
        guard let index = idleLegs.lastIndex(where: { $0.backend == backend }) else { return nil }
        let leg = idleLegs.remove(at: index)
        leg.isReused = true
        leg.hasAnswered = false
        leg.parser.reset()
        return leg
    }

    /// An idle leg speaks: whatever it says, it is of no use any more.
    func checkIdleLeg(_ stream: ByteStream, _ failure: StreamFailure?) {
        guard let index = idleLegs.firstIndex(where: { $0.side.stream === stream }) else { return }
        let side = idleLegs[index].side
        side.becameReadable()
        if failure == nil, !side.fill() { return side.releaseIdleBlocks() }
        idleLegs.remove(at: index)
        if failure == nil { side.close() } else { side.reset() }
    }

    func closeIdleLegs() {
        for leg in idleLegs { leg.side.close() }
        idleLegs.removeAll()
    }
}
