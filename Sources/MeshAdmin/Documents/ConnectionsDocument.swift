import MeshModel
internal import MeshTelemetry

/// `/connections`.
struct ConnectionsDocument: Encodable {
    struct Connection: Encodable {
        let workload: String
        let direction: OpenConnection.Direction
        let source: String
        let originalDestination: String?
        let actualDestination: String?
        let `protocol`: String
        let peerIdentity: String?
        let bytesFromClient: UInt64
        let bytesToClient: UInt64
        let ageMilliseconds: UInt64

        init(_ connection: OpenConnection) {
            workload = connection.workload.description
            direction = connection.direction
            source = connection.source.description
            originalDestination = connection.originalDestination?.description
            actualDestination = connection.actualDestination?.description
            self.protocol = connection.isTunnel ? "HBONE" : "TCP"
            peerIdentity = connection.peerIdentity?.description
            bytesFromClient = connection.bytesFromClient
            bytesToClient = connection.bytesToClient
            ageMilliseconds = connection.ageMilliseconds
        }
    }

    let inbound: Int
    let outbound: Int
    let connections: [Connection]

    init(_ connections: [OpenConnection]) {
        inbound = connections.count { $0.direction == .inbound }
        outbound = connections.count - inbound
        self.connections = connections.map(Connection.init)
    }
}
