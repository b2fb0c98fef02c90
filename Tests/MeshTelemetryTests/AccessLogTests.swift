import Glibc
import MeshModel
import Synchronization
import Testing

@testable import MeshTelemetry

@Suite("Access log")
struct AccessLogTests {
    static func record(_ direction: AccessLogRecord.Direction = .outbound) -> AccessLogRecord {
        var record = AccessLogRecord(
            time: Timestamp(microseconds: 1_795_245_752_000_123), event: .connectionComplete, direction: direction)
        record.source = SocketAddress("10.1.0.1:4000")
        record.sourceWorkload = ObjectName(namespace: "default", name: "client")
        record.sourceIdentity = SPIFFEID(principal: "cluster.local/ns/default/sa/client")
        record.destination = SocketAddress("[fd00::1]:80")
        record.authority = "[fd00::1]:80"
        record.service = ObjectName(namespace: "default", name: "shop")
        record.destinationWorkload = ObjectName(namespace: "default", name: "server")
        record.bytesFromClient = 10
        record.bytesToClient = 20
        record.durationNanoseconds = 12_999_999
        return record
    }

    static func line(_ record: AccessLogRecord, _ format: LogFormat) -> String {
        var line = LineEncoder(format)
        record.write(to: &line)
        return String(decoding: line.written, as: UTF8.self)
    }

    @Test("JSON: keys in ztunnel's order, absent values left out")
    func json() {
        #expect(
            Self.line(Self.record(), .json) == #"""
                {"level":"info","time":"2026-11-21T07:22:32.000123Z","scope":"access","message":"connection complete",\#
                "src.addr":"10.1.0.1:4000","src.workload":"client","src.namespace":"default",\#
                "src.identity":"spiffe://cluster.local/ns/default/sa/client","dst.addr":"[fd00::1]:80",\#
                "dst.hbone_addr":"[fd00::1]:80","dst.service":"shop.default.svc.cluster.local",\#
                "dst.workload":"server","dst.namespace":"default","direction":"outbound","bytes_sent":10,\#
                "bytes_recv":20,"duration":"12ms","reason":"-"}

                """#)
    }

    @Test("Text: columns between tabs, then pairs; a refusal names reason and policy")
    func text() {
        var record = AccessLogRecord(time: Timestamp(microseconds: 0), event: .connectionFailed, direction: .inbound)
        record.source = SocketAddress("10.1.0.1:4000")
        record.error = "no \"way\""
        record.reason = .policyDeny
        record.policy = ObjectName(namespace: "default", name: "deny")
        #expect(
            Self.line(record, .text)
                == "1970-01-01T00:00:00.000000Z\twarn\taccess\tconnection failed\tsrc.addr=\"10.1.0.1:4000\" "
                + "direction=\"inbound\" bytes_sent=0 bytes_recv=0 duration=\"0ms\" error=\"no \\\"way\\\"\" "
                + "reason=\"policy_deny\" policy=\"default/deny\"\n")
    }

    @Test("What the kernel carried says its tier, and how much of it bypassed TCP")
    func kernel() {
        var record = Self.record()
        record.kernel = .init(roundTripMicroseconds: 70, retransmits: 2)
        #expect(Self.line(record, .text).hasSuffix(" reason=\"-\" tier=\"direct\" srtt=\"70us\" retransmits=2\n"))
        record.kernel = .init(roundTripMicroseconds: 70, retransmits: 0, bytesAccelerated: 25)
        #expect(
            Self.line(record, .text).hasSuffix(
                " tier=\"sockmap\" srtt=\"70us\" retransmits=0 bytes_accelerated=25\n"))
    }

    @Test(
        "Addresses are spelled as everywhere else",
        arguments: [
            "0.0.0.0:0", "255.255.255.255:65535", "10.0.100.9:80", "[::]:1", "[::1]:65535", "[2001:db8::a:0:1]:443",
        ])
    func addresses(_ text: String) {
        var record = AccessLogRecord(time: Timestamp(microseconds: 0), event: .connectionOpened, direction: .inbound)
        record.destination = SocketAddress(text)
        #expect(Self.line(record, .text).contains("\tdst.addr=\"\(text)\" direction="))
        record.source = record.destination
        #expect(Self.line(record, .json).contains("\"src.addr\":\"\(text)\",\"dst.addr\":\"\(text)\""))
    }

    @Test("Numbers of any length", arguments: [0, 9, 10, 99, 100, 1_234_567_890, UInt64.max])
    func numbers(_ number: UInt64) {
        var record = AccessLogRecord(time: Timestamp(microseconds: 0), event: .connectionOpened, direction: .outbound)
        record.bytesFromClient = number
        #expect(Self.line(record, .text).contains(" bytes_sent=\(number) bytes_recv=0 "))
    }

    @Test("Bytes are told from the side of the workload the proxy serves")
    func sides() {
        #expect(Self.line(Self.record(.outbound), .text).contains("bytes_sent=10 bytes_recv=20"))
        #expect(Self.line(Self.record(.inbound), .text).contains("bytes_sent=20 bytes_recv=10"))
    }

    @Test("A request adds method, path, status and route")
    func request() {
        var record = Self.record()
        record.event = .requestComplete
        record.error = "upstream gone"
        record.request = .init(
            method: "GET", path: "/a\n\u{7f}\u{1}\t\"\\é", status: 503, route: ObjectName(namespace: "a", name: "r"))
        let line = Self.line(record, .json)
        #expect(line.hasPrefix("{\"level\":\"error\""))
        #expect(
            line.hasSuffix(
                #""method":"GET","path":"/a\n\u007f\u0001\t\"\\é","status":503,"route":"a/r"}"# + "\n"))
        #expect(line.utf8.count { $0 == UInt8(ascii: "\n") } == 1)
    }

    @Test(
        "Times are RFC 3339 in UTC",
        arguments: [
            (0, "1970-01-01T00:00:00.000000Z"), (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"), (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (1_735_689_599_000_001, "2024-12-31T23:59:59.000001Z"), (-1, "1969-12-31T23:59:59.999999Z"),
        ])
    func times(_ microseconds: Int64, _ expected: String) {
        var bytes = LineBytes()
        Timestamp(microseconds: microseconds).append(to: &bytes)
        #expect(String(decoding: bytes.written, as: UTF8.self) == expected)
    }

    @Test("Each day follows the one before")
    func days() {
        var (year, month, day) = (1970, 1, 1)
        for number in 0..<15_000 {
            var bytes = LineBytes(capacity: 1)
            Timestamp(microseconds: Int64(number) * 86_400_000_000).append(to: &bytes)
            let expected = [year, month, day].map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: "-")
            guard bytes.written.starts(with: expected.utf8) else {
                Issue.record("day \(number) is not \(expected)")
                return
            }
            let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
            let length = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
            day += 1
            if day > length { (month, day) = (month + 1, 1) }
            if month > 12 { (year, month) = (year + 1, 1) }
        }
    }
}

/// A pipe whose two ends close with it.
private final class Pipe: Sendable {
    let reading: Int32
    let writing: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0)
        (reading, writing) = (ends[0], ends[1])
    }

    func closeWriting() { close(writing) }

    /// Everything until the writer's end is closed.
    func readAll() -> [UInt8] {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(reading, &chunk, chunk.count)
            if count <= 0 { break }
            all += chunk[..<count]
        }
        close(reading)
        return all
    }
}

@Suite("Access log writer", .serialized)
struct AccessLogWriterTests {
    @Test("Cores' lines arrive whole and in each core's order, and stop() writes what is queued")
    func concurrent() async {
        let pipe = Pipe()
        let writer = AccessLogWriter(fileDescriptor: pipe.writing, format: .text, cores: 3, capacity: 3 * 4096)
        writer.start()
        let reader = Task.detached { pipe.readAll() }
        let perCore = 1000
        await withTaskGroup(of: Void.self) { group in
            for (core, queue) in writer.queues.enumerated() {
                group.addTask {
                    for number in 0..<perCore {
                        var record = AccessLogTests.record()
                        record.durationNanoseconds = UInt64(number) * 1_000_000
                        record.sourceWorkload = ObjectName(namespace: "core", name: "\(core)")
                        queue.append(record)
                    }
                }
            }
        }
        writer.stop()
        pipe.closeWriting()
        let lines = String(decoding: await reader.value, as: UTF8.self).split(separator: "\n")
        #expect(writer.dropped == 0 && lines.count == 3 * perCore)
        for core in 0..<3 {
            let own = lines.filter { $0.contains("src.workload=\"\(core)\"") }
            #expect(own.count == perCore)
            #expect(own.enumerated().allSatisfy { $1.contains(" duration=\"\($0)ms\" ") })
        }
    }

    @Test("A full queue drops and counts; nobody waits")
    func full() async {
        let pipe = Pipe()
        let writer = AccessLogWriter(fileDescriptor: pipe.writing, format: .text, cores: 1, capacity: 4)
        let accepted = (0..<10).map { _ in writer.queues[0].append(AccessLogTests.record()) }
        #expect(accepted == Array(repeating: true, count: 4) + Array(repeating: false, count: 6))
        #expect(writer.dropped == 6)
        writer.start()
        writer.stop()
        pipe.closeWriting()
        #expect(pipe.readAll().count { $0 == UInt8(ascii: "\n") } == 4)
        // The ring has room again.
        #expect(writer.queues[0].append(AccessLogTests.record()))
    }

    @Test("A reader that went away costs lines, not the process")
    func brokenPipe() {
        let pipe = Pipe()
        close(pipe.reading)
        let writer = AccessLogWriter(fileDescriptor: pipe.writing, format: .json, cores: 1)
        writer.start()
        writer.queues[0].append(AccessLogTests.record())
        writer.stop()
        pipe.closeWriting()
        #expect(writer.dropped == 1)
    }
}
