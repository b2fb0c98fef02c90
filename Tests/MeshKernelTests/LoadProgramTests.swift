import Foundation
import Glibc
import Testing

/// The load program that benchmarks and life-cycle tests trust: what it counts must be so. No capture here.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class LoadProgramTests {
    let lab: Lab

    init() throws { lab = try Lab() }

    deinit { lab.tearDown() }

    @Test func everyModeMovesItsBytesAndCountsThem() throws {
        let echo = "10.77.0.1:7001"
        let sink = "10.77.0.1:7002"
        let server = try lab.loadServer(in: lab.out, echo: echo, sink: sink)
        var ended = false
        defer { if !ended { server.stop() } }

        let trips = try lab.load(
            in: lab.pod, "rr", "--to", echo, "--connections", "4", "--seconds", "0.2", "--size", "1000")
        #expect(trips.status == 0 && trips.report.failed == 0)
        let roundTrips = try #require(trips.report.roundTrips)
        #expect(roundTrips > 4)

        let short = try lab.load(
            in: lab.pod, "connect", "--to", echo, "--count", "500", "--connections", "8")
        #expect(short.status == 0 && short.report.done == 500 && short.report.tried == 500)

        let stream = try lab.load(in: lab.pod, "bulk", "--to", sink, "--seconds", "0.2", "--connections", "2")
        #expect(stream.status == 0)
        let bytes = try #require(stream.report.bytes)
        #expect(bytes > 1 << 20)

        let times = try lab.load(in: lab.pod, "times", "--to", echo, "--count", "50")
        #expect(times.status == 0 && times.report.done == 50)

        let held = try lab.load(in: lab.pod, "hold", "--to", echo, "--to", echo, "--count", "100")
        #expect(held.status == 0 && held.report.opened == 200 && held.report.answered == 200)

        let seen = try JSONDecoder().decode(LoadServerReport.self, from: Data(server.end().drop { $0 != "{" }.utf8))
        ended = true
        #expect(seen.accepted == 4 + 500 + 2 + 50 + 200 && seen.open == 0 && seen.reset == 0)
        #expect(seen.bytes == roundTrips * 1000 + 500 * 128 + bytes + 2 * 200 * 128)
    }

    @Test func bothFamiliesWork() throws {
        let server = try lab.loadServer(in: lab.out, echo: "[::]:7001")
        defer { server.stop() }
        for host in ["[fd00:77::1]:7001", "10.77.0.1:7001"] {
            let outcome = try lab.load(in: lab.pod, "connect", "--to", host, "--count", "5")
            #expect(outcome.status == 0 && outcome.report.done == 5, "\(host)")
        }
    }

    @Test func refusalsAreCountedExactly() throws {
        for mode in ["connect", "times", "hold"] {
            let outcome = try lab.load(in: lab.pod, mode, "--to", "10.77.0.1:7009", "--count", "7")
            #expect(outcome.status == 1, "\(mode)")
            #expect(outcome.report.refused == 7 && outcome.report.failed == 7, "\(mode): \(outcome.report)")
        }
        for mode in ["rr", "bulk"] {
            let outcome = try lab.load(in: lab.pod, mode, "--to", "10.77.0.1:7009", "--connections", "3")
            #expect(outcome.status == 1, "\(mode)")
            #expect(outcome.report.refused == 3 && outcome.report.failed == 3, "\(mode): \(outcome.report)")
        }
    }

    /// Answers the first connection with another byte than it got, cuts the second short, resets the third, and leaves
    /// the fourth without an answer.
    private static let faulty = #"""
        import socket, struct
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('10.77.0.1', 7003))
        s.listen(8)
        print('ready', flush=True)
        kept = []
        for number in range(4):
            c, _ = s.accept()
            kept.append(c)
            data = b''
            while len(data) < 128: data += c.recv(128 - len(data))
            if number == 0: c.sendall(data[:-1] + bytes([data[-1] ^ 1]))
            if number == 1: c.sendall(data[:100]); c.close()
            if number == 2: c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close()
        s.accept()
        """#

    @Test func wrongBytesEarlyEndsResetsAndSilenceAreToldApart() throws {
        let server = try Background(lab.inside(lab.out) + ["python3", "-c", Self.faulty])
        defer { server.stop() }
        let outcome = try lab.load(
            in: lab.pod, "connect", "--to", "10.77.0.1:7003", "--count", "4", "--patience", "1")
        let report = outcome.report
        #expect(outcome.status == 1 && report.done == 0 && report.failed == 4, "\(report)")
        #expect(report.corrupted == 1 && report.cutShort == 1 && report.reset == 1 && report.timedOut == 1, "\(report)")
    }

    @Test func badUsageIsRefusedByName() throws {
        for (words, complaint) in [
            (["rr"], "rr: needs --to"), (["fly"], "fly: unknown mode"), (["rr", "--to", "10.77.0.1"], "--to: not an"),
            (["rr", "--to", "10.77.0.1:0"], "--to: not an"), (["rr", "--to"], "--to: needs a value"),
            (["hold", "--to", "10.77.0.1:1"], "hold: needs --count"), (["rr", "--size", "0"], "--size: not a number"),
            (["serve"], "serve: needs --echo or --sink"), (["rr", "--seconds", "nan"], "--seconds: not a time"),
        ] {
            let outcome = try run([LoadProgram.path()] + words)
            #expect(outcome.status == 2 && outcome.errors.contains(complaint), "\(words): \(outcome.errors.prefix(80))")
        }
    }
}
