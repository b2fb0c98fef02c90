import Foundation
import MeshRuntime
import Synchronization

/// Reads every frame of a network namespace and judges it on the spot: our own tcpdump, so that proofs about the wire
/// need no other tool. On a lab's wire each frame is counted once, where it comes in.
public final class PacketCapture: Sendable {
    private struct State {
        var analysis: TrafficAnalysis
        var lost = 0
        var caughtUp = 0
        var isStopped = false
    }

    private let state: Mutex<State>
    private let socket: Int32
    /// Written to by whoever wants the reader to catch up (1) or to stop (0).
    private let orders: (reading: Int32, writing: Int32)

    // From linux/if_packet.h and linux/if_ether.h, which Swift's Glibc does not carry.
    private static let packetFamily: Int32 = 17
    private static let packetLevel: Int32 = 263
    private static let packetStatistics: Int32 = 6
    private static let allProtocols: UInt16 = 3
    private static let outgoing: UInt8 = 4
    /// Where sll_pkttype stands in sockaddr_ll.
    private static let packetTypeOffset = 10

    /// Starts at once and runs until ``stop()``; `Lab.capture(markers:)` stops it with its lab.
    /// - Parameter markers: texts to look for in everything that passes.
    /// - Throws: `LabError`; needs CAP_NET_RAW.
    init(in host: LabHost, markers: [String] = []) throws {
        do {
            socket = try NetworkNamespace(path: host.namespacePath).run { () throws(SystemError) in
                Self.open()
            }
        } catch {
            throw LabError(.setUp, "cannot enter \(host.namespacePath): \(error)")
        }
        guard socket >= 0 else {
            throw LabError(.setUp, "cannot capture packets in \(host.name): \(String(cString: strerror(-socket)))")
        }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else {
            close(socket)
            throw LabError(.setUp, "no pipe for the capture: \(String(cString: strerror(errno)))")
        }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        orders = (ends[0], ends[1])
        state = Mutex(State(analysis: TrafficAnalysis(markers: markers)))
        let thread = Thread { [self] in read() }
        thread.name = "lab-capture"
        thread.start()
    }

    private static func open() -> Int32 {
        let kind = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = Glibc.socket(packetFamily, kind, Int32(allProtocols.bigEndian))
        guard descriptor >= 0 else { return -errno }
        // Beyond the limit of ordinary sockets: a burst must wait for the reader, not be lost.
        var size: Int32 = 64 << 20
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, socklen_t(MemoryLayout<Int32>.size))
        return descriptor
    }

    /// Everything that has passed until now.
    public func report() async throws -> TrafficReport {
        let (before, isStopped) = state.withLock { ($0.caughtUp, $0.isStopped) }
        if !isStopped {
            var order: UInt8 = 1
            write(orders.writing, &order, 1)
            try await until("the capture catches up", within: .seconds(20)) {
                state.withLock { $0.caughtUp > before || $0.isStopped }
            }
        }
        return state.withLock { $0.analysis.report(lost: $0.lost) }
    }

    deinit {
        close(orders.reading)
        close(orders.writing)
    }

    /// Tells the reader to end.
    func orderStop() {
        var order: UInt8 = 0
        write(orders.writing, &order, 1)
    }

    /// Ends the capture; what was seen can still be reported.
    public func stop() async throws {
        orderStop()
        try await until("the capture ends") { state.withLock { $0.isStopped } }
    }

    private func read() {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 16)
        defer { buffer.deallocate() }
        var descriptors = [
            pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
            pollfd(fd: orders.reading, events: Int16(POLLIN), revents: 0),
        ]
        while true {
            poll(&descriptors, 2, -1)
            // Orders first: what was on the wire when the order came is then drained below.
            var order: UInt8 = 255
            if descriptors[1].revents != 0 { _ = Glibc.read(orders.reading, &order, 1) }
            drain(into: buffer)
            let lost = takeLosses()
            state.withLock { state in
                state.lost += lost
                if order == 1 { state.caughtUp += 1 }
                if order == 0 { state.isStopped = true }
            }
            if order == 0 { break }
        }
        close(socket)
    }

    private func drain(into buffer: UnsafeMutableRawBufferPointer) {
        var address = [UInt8](repeating: 0, count: 32)
        while true {
            var length = socklen_t(address.count)
            let count = address.withUnsafeMutableBytes { raw in
                recvfrom(
                    socket, buffer.baseAddress, buffer.count, Int32(MSG_TRUNC),
                    raw.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length)
            }
            if count < 0 { return }
            // On a bridge every frame comes in on one port and goes out on another: once is enough.
            if address[Self.packetTypeOffset] == Self.outgoing { continue }
            state.withLock { state in
                if count > buffer.count { state.lost += 1 }
                state.analysis.feed(
                    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<min(count, buffer.count)]))
            }
        }
    }

    /// struct tpacket_stats {packets, drops}; the kernel counts from zero after each look.
    private func takeLosses() -> Int {
        var counts: [UInt32] = [0, 0]
        var length = socklen_t(8)
        let result = getsockopt(socket, Self.packetLevel, Self.packetStatistics, &counts, &length)
        return result == 0 ? Int(counts[1]) : 0
    }
}
