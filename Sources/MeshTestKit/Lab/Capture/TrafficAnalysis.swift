import MeshModel

/// Judges frames one after the other. Memory is bounded: a flow keeps its state, never its bytes.
struct TrafficAnalysis {
    private struct Key: Hashable {
        let client: SocketAddress
        let server: SocketAddress
    }

    private struct Connection {
        var toServer: StreamDirection
        var toClient: StreamDirection
    }

    private let markerTexts: [String]
    private let markers: [[UInt8]]
    private var open: [Key: Connection] = [:]
    private var past: [(Key, Connection)] = []
    private var frames = 0
    private var malformed = 0
    private var otherFrames: [UInt8: Int] = [:]
    private var otherMarkers: Set<Int> = []
    private var forgotten = 0

    private static let flowLimit = 100_000

    init(markers: [String]) {
        markerTexts = markers
        self.markers = markers.map { Array($0.utf8) }
    }

    mutating func feed(_ frame: UnsafeRawBufferPointer) {
        frames += 1
        switch TCPSegment.parse(frame) {
        case .tcp(let segment): feed(segment, UnsafeRawBufferPointer(rebasing: frame[segment.payload]))
        case .housekeeping: break
        case .other(let number):
            otherFrames[number, default: 0] += 1
            searchWhole(frame)
        case .malformed:
            malformed += 1
            searchWhole(frame)
        }
    }

    private mutating func searchWhole(_ frame: UnsafeRawBufferPointer) {
        for (index, marker) in markers.enumerated() where MarkerSearch.contains(frame, marker) {
            otherMarkers.insert(index)
        }
    }

    private mutating func feed(_ segment: TCPSegment, _ payload: UnsafeRawBufferPointer) {
        let forward = Key(client: segment.source, server: segment.destination)
        let backward = Key(client: segment.destination, server: segment.source)
        if segment.isSYN, !segment.isACK {
            // The same four numbers again with another first sequence number are another connection.
            if let old = open[forward], old.toServer.initialSequence != segment.sequence { retire(forward, old) }
            guard room() else { return }
            var connection = open[forward] ?? fresh()
            connection.toServer.open(sequence: segment.sequence)
            open[forward] = connection
            return
        }
        if segment.isSYN {
            open[backward]?.toClient.open(sequence: segment.sequence)
            return
        }
        if open[forward] != nil {
            open[forward]!.toServer.receive(payload, sequence: segment.sequence)
        } else if open[backward] != nil {
            open[backward]!.toClient.receive(payload, sequence: segment.sequence)
        } else if !payload.isEmpty, room() {
            // Older than the capture: the lower port is most likely the server's.
            let isForward = segment.destination.port <= segment.source.port
            var connection = fresh()
            if isForward {
                connection.toServer.receive(payload, sequence: segment.sequence)
            } else {
                connection.toClient.receive(payload, sequence: segment.sequence)
            }
            open[isForward ? forward : backward] = connection
        }
    }

    private func fresh() -> Connection {
        Connection(toServer: StreamDirection(markers: markers), toClient: StreamDirection(markers: markers))
    }

    private mutating func room() -> Bool {
        if open.count + past.count < Self.flowLimit { return true }
        forgotten += 1
        return false
    }

    private mutating func retire(_ key: Key, _ connection: Connection) {
        past.append((key, connection))
        open[key] = nil
    }

    func report(lost: Int) -> TrafficReport {
        var flows: [TrafficReport.Flow] = []
        var hits: [TrafficReport.MarkerHit] = otherMarkers.sorted().map {
            TrafficReport.MarkerHit(marker: markerTexts[$0], place: "a frame that is not TCP")
        }
        for (key, connection) in past + open.map({ ($0.key, $0.value) }) {
            var connection = connection
            connection.toServer.finish()
            connection.toClient.finish()
            let (up, down) = (connection.toServer, connection.toClient)
            for (direction, from, to) in [(up, key.client, key.server), (down, key.server, key.client)] {
                for index in direction.markers.sorted() {
                    hits.append(
                        TrafficReport.MarkerHit(marker: markerTexts[index], place: "the TCP stream \(from) → \(to)"))
                }
            }
            flows.append(
                TrafficReport.Flow(
                    client: key.client, server: key.server, bytesToServer: up.bytes, bytesToClient: down.bytes,
                    security: Self.security(up, down),
                    beginning: Self.text(up.bytes > 0 ? up.beginning : down.beginning)
                ))
        }
        flows.sort { ($0.client.ip, $0.client.port) < ($1.client.ip, $1.client.port) }
        return TrafficReport(
            flows: flows, markerHits: hits, frames: frames, malformedFrames: malformed, otherFrames: otherFrames,
            lostFrames: lost, forgottenFlows: forgotten)
    }

    private static func security(_ up: StreamDirection, _ down: StreamDirection) -> TrafficReport.Security {
        if up.bytes + down.bytes == 0 { return .silent }
        if up.isFromStart, let violation = up.walk.violation { return .notTLS13("from the client: \(violation)") }
        if down.isFromStart, let violation = down.walk.violation { return .notTLS13("from the server: \(violation)") }
        guard up.isFromStart, down.isFromStart || down.bytes == 0 else { return .handshakeNotSeen }
        if up.hasGap || down.hasGap { return .incomplete }
        guard let chosen = down.walk.chosen else {
            return up.walk.sawClientHello ? .handshakeUnfinished : .incomplete
        }
        guard chosen.version == 0x0304 else {
            return .notTLS13("the server chose version 0x" + String(chosen.version, radix: 16))
        }
        return .tls13(cipher: chosen.cipher, records: up.walk.applicationRecords + down.walk.applicationRecords)
    }

    private static func text(_ bytes: [UInt8]) -> String {
        String(decoding: bytes.map { (32...126).contains($0) ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
    }
}
