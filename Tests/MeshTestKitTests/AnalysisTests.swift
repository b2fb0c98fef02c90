import MeshModel
import Testing

@testable import MeshTestKit

/// The judgement of frames, without a network.
@Suite struct AnalysisTests {
    static let client = SocketAddress(ip: IPAddress("10.0.0.1")!, port: 40000)
    static let server = SocketAddress(ip: IPAddress("10.0.0.2")!, port: 15008)

    @Test func aMarkerIsFoundAcrossSegmentsInAnyOrder() {
        var analysis = TrafficAnalysis(markers: ["needle", "absent"])
        analysis.feed(frame: Self.segment(toServer: true, 99, "", syn: true))
        analysis.feed(frame: Self.segment(toServer: true, 107, "dle in it"))
        analysis.feed(frame: Self.segment(toServer: true, 100, "hay nee"))
        let report = analysis.report(lost: 0)
        #expect(report.markerHits.map(\.marker) == ["needle"])
        #expect(report.flows[0].bytesToServer == 16)
    }

    @Test func repeatedAndOverlappingBytesCountOnce() {
        var analysis = TrafficAnalysis(markers: ["abcdef"])
        analysis.feed(frame: Self.segment(toServer: true, 99, "", syn: true))
        for (sequence, text) in [(100, "abc"), (100, "abc"), (101, "bcd"), (105, "f"), (102, "cde")] {
            analysis.feed(frame: Self.segment(toServer: true, UInt32(sequence), text))
        }
        let report = analysis.report(lost: 0)
        #expect(report.flows[0].bytesToServer == 6 && report.markerHits.count == 1)
    }

    @Test func sequenceNumbersWrap() {
        var analysis = TrafficAnalysis(markers: ["abcdef"])
        analysis.feed(frame: Self.segment(toServer: true, 0xffff_fffc, "", syn: true))
        analysis.feed(frame: Self.segment(toServer: true, 0xffff_fffd, "abc"))
        analysis.feed(frame: Self.segment(toServer: true, 0, "def"))
        #expect(analysis.report(lost: 0).markerHits.count == 1)
    }

    @Test func bytesBehindAHoleAreStillSearchedAndTheHoleIsSaid() {
        var analysis = TrafficAnalysis(markers: ["needle"])
        analysis.feed(frame: Self.segment(toServer: true, 99, "", syn: true))
        analysis.feed(frame: Self.segment(toServer: true, 200, "a needle"))
        analysis.feed(frame: Self.segment(toServer: false, 9, "", syn: true, ack: true))
        let report = analysis.report(lost: 0)
        #expect(report.markerHits.count == 1)
        #expect(report.flows[0].security == .incomplete)
    }

    @Test func theSamePortsAgainAreAnotherConnection() {
        var analysis = TrafficAnalysis(markers: [])
        for first: UInt32 in [10, 5000] {
            analysis.feed(frame: Self.segment(toServer: true, first, "", syn: true))
            analysis.feed(frame: Self.segment(toServer: true, first + 1, "hello"))
        }
        #expect(analysis.report(lost: 0).flows.map(\.bytesToServer) == [5, 5])
    }

    @Test func aConnectionOlderThanTheCaptureProvesNothing() {
        var analysis = TrafficAnalysis(markers: [])
        analysis.feed(frame: Self.segment(toServer: false, 7, "\u{17}\u{3}\u{3}"))
        let report = analysis.report(lost: 0)
        #expect(report.flows[0].security == .handshakeNotSeen)
        #expect(report.flows[0].server == Self.server)
    }

    @Test func markersInOtherProtocolsAreFoundToo() {
        var frame = Self.segment(toServer: true, 1, "a needle in a datagram")
        frame[23] = 17
        var analysis = TrafficAnalysis(markers: ["needle"])
        analysis.feed(frame: frame)
        let report = analysis.report(lost: 0)
        #expect(report.markerHits.count == 1 && report.otherFrames == [17: 1])
    }

    @Test func cutFramesAreMalformedNeverFatal() {
        let whole = Self.segment(toServer: true, 1, "payload")
        for length in 0..<whole.count {
            var analysis = TrafficAnalysis(markers: ["x"])
            analysis.feed(frame: Array(whole.prefix(length)))
            #expect(!analysis.report(lost: 0).isComplete, "\(length)")
        }
    }

    @Test func tls13IsProvedByItsServerHello() {
        var walk = TLSRecordWalk()
        // In pieces of one byte: borders of segments mean nothing.
        for byte in Self.serverHello(version: 0x0304) + [20, 3, 3, 0, 1, 1] + [23, 3, 3, 0, 2, 9, 9] {
            withUnsafeBytes(of: byte) { walk.feed($0) }
        }
        #expect(walk.chosen?.version == 0x0304 && walk.chosen?.cipher == 0x1301)
        #expect(walk.violation == nil && walk.applicationRecords == 1 && walk.records == 3)
    }

    @Test func tls12AndClearTextAreViolations() {
        var old = TLSRecordWalk()
        let certificate: [UInt8] = [22, 3, 3, 0, 4, 11, 0, 0, 0]
        (Self.serverHello(version: nil) + certificate).withUnsafeBytes { old.feed($0) }
        #expect(old.chosen?.version == 0x0303 && old.violation != nil)

        var clear = TLSRecordWalk()
        Array("GET / HTTP/1.1\r\n".utf8).withUnsafeBytes { clear.feed($0) }
        #expect(clear.violation?.hasPrefix("no TLS record at byte 0: 47 45") == true)
    }

    @Test func markerSearchSeesEveryBorder() {
        let marker = Array("marker".utf8)
        let text = Array("xxmamarkerxx".utf8)
        for cut in 0...text.count {
            for second in cut...text.count {
                var search = MarkerSearch([marker])
                var found: Set<Int> = []
                for piece in [text[..<cut], text[cut..<second], text[second...]] {
                    Array(piece).withUnsafeBytes { found.formUnion(search.feed($0)) }
                }
                #expect(found == [0], "cut at \(cut) and \(second)")
            }
        }
    }

    static func serverHello(version: UInt16?) -> [UInt8] {
        var body: [UInt8] = [3, 3] + Array(repeating: 7, count: 32) + [0, 0x13, 0x01, 0]
        if let version { body += [0, 6, 0, 43, 0, 2, UInt8(version >> 8), UInt8(version & 0xff)] }
        let message = [2, 0, 0, UInt8(body.count)] + body
        return [22, 3, 3, 0, UInt8(message.count)] + message
    }

    /// An Ethernet, IPv4 and TCP frame.
    static func segment(
        toServer: Bool, _ sequence: UInt32, _ text: String, syn: Bool = false, ack: Bool = false
    ) -> [UInt8] {
        let (from, to) = toServer ? (client, server) : (server, client)
        let payload = Array(text.utf8)
        func two(_ value: Int) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
        func four(_ value: UInt32) -> [UInt8] { two(Int(value >> 16)) + two(Int(value & 0xffff)) }
        let ethernet: [UInt8] = Array(repeating: 2, count: 12) + [8, 0]
        let ip: [UInt8] = [0x45, 0] + two(40 + payload.count) + [0, 0, 0, 0, 64, 6, 0, 0]
        let tcp = two(Int(from.port)) + two(Int(to.port)) + four(sequence) + four(0)
        let flags: UInt8 = (syn ? 2 : 0) | (ack ? 16 : 0)
        return ethernet + ip + four(UInt32(from.ip.low)) + four(UInt32(to.ip.low)) + tcp + [0x50, flags, 0xff, 0xff]
            + [0, 0, 0, 0] + payload
    }
}

extension TrafficAnalysis {
    mutating func feed(frame: [UInt8]) { frame.withUnsafeBytes { feed($0) } }
}
