import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// The hierarchy of the old memory cgroup.
private let memory = "/sys/fs/cgroup/memory"

/// Tier T2: what a reader that never reads costs, in bytes as the kernel accounts socket memory. The old memory cgroup
/// tells that of a group of processes exactly, once it has a limit, which is set out of reach; the new one tells it in
/// steps as large as what is measured here.
@Suite(
    .serialized, .timeLimit(.minutes(2)),
    .enabled(
        if: access("\(memory)/memory.kmem.tcp.usage_in_bytes", R_OK) == 0,
        "the memory of sockets is counted by the memory controller of cgroup version 1, which is not mounted here"))
struct AccelerateMemoryTests {
    /// With more than that unread a direction goes by TCP, by the promise of accelerate.bpf.c.
    private static let limit = 1_048_576

    let mesh: AccelerateLab

    init() throws { mesh = try AccelerateLab() }

    /// Sends messages of one size along the first `ways` directions until nothing goes any more, then reads it all.
    /// - Returns: what that cost while it waited, and what the buffers of the sockets it went through may cost.
    private func flood(ways: Int, message: Int) throws -> (cost: Int, buffers: Int) {
        let group = "\(memory)/\(mesh.lab.id)"
        try #require(mkdir(group, 0o755) == 0)
        defer { rmdir(group) }
        #expect(Files.write("\(1 << 40)", to: "\(group)/memory.kmem.tcp.limit_in_bytes") == 0)
        let program = """
            open('\(group)/cgroup.procs', 'w').write(str(os.getpid()))
            def cost():
                with open('\(group)/memory.kmem.tcp.usage_in_bytes') as f: return int(f.read())
            c, s = pair()
            ways = [(c, s), (s, c)][:\(ways)]
            before, sent, p = cost(), {c: 0, s: 0}, select.poll()
            for sender, _ in ways:
                sender.setblocking(False)
                p.register(sender, select.POLLOUT)
            while p.poll(500):
                for sender, _ in ways:
                    try: sent[sender] += sender.send(b'z' * \(message))
                    except BlockingIOError: pass
                    assert sent[sender] < 64 << 20, 'unbounded'
            print(cost() - before, sum(
                r.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) + t.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                for t, r in ways))
            for sender, receiver in ways:
                receiver.settimeout(20)
                assert len(read(receiver, sent[sender])) == sent[sender]
            for one in c, s: one.close()
            """
        let words = try mesh.run(program).compactMap(Int.init)
        try #require(words.count == 2)
        return (words[0], words[1])
    }

    /// P13. Without the limit all of it would go the short way, and there is no other limit on that.
    @Test(arguments: [(1, 100), (1, 4096), (1, 200_000), (2, 65536)])
    func aStoppedReaderCostsItsBuffersAndTheLimit_P13(ways: Int, message: Int) throws {
        let accelerated = try flood(ways: ways, message: message)
        let record = try #require(try mesh.records(1).first)
        let short = Int(record.bytesAccelerated)
        #expect(short <= ways * (Self.limit + message) + 1, "and the byte of greeting")
        #expect(short > ways * Self.limit)
        #expect(accelerated.cost >= short - 1, "the meter does not see what was handed over")
        #expect(accelerated.cost <= accelerated.buffers + ways * (Self.limit + message))
        // The same by TCP alone, for the reader of the output.
        try mesh.allow(accelerated: false)
        let direct = try flood(ways: ways, message: message)
        #expect(direct.cost <= direct.buffers)
        print(
            "P13: \(ways) ways, messages of \(message): \(accelerated.cost) bytes wait, \(short) of them handed over; "
                + "by TCP \(direct.cost)")
    }
}
