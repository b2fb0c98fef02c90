/// What a service port carries, from `appProtocol` or the port name's prefix (Istio's protocol selection).
public enum AppProtocol: Sendable, Hashable {
    case tcp
    case http1
}

public struct ServicePort: Hashable, Sendable {
    public enum Target: Hashable, Sendable {
        case number(UInt16)
        /// Resolved per workload through `Workload.namedPorts`.
        case name(String)
    }

    public var name: String
    public var port: UInt16
    public var target: Target
    public var appProtocol: AppProtocol

    public init(name: String = "", port: UInt16, target: Target? = nil, appProtocol: AppProtocol = .tcp) {
        self.name = name
        self.port = port
        self.target = target ?? .number(port)
        self.appProtocol = appProtocol
    }
}

public struct Service: Hashable, Sendable {
    public var name: ObjectName
    public var labels: [String: String]
    /// Virtual addresses (`clusterIPs`); empty for a headless service.
    public var addresses: [IPAddress]
    /// Pods chosen by label within the service's namespace; an empty selector chooses none.
    public var selector: [String: String]
    public var ports: [ServicePort]

    public init(
        name: ObjectName, labels: [String: String] = [:], addresses: [IPAddress] = [],
        selector: [String: String] = [:], ports: [ServicePort] = []
    ) {
        self.name = name
        self.labels = labels
        self.addresses = addresses
        self.selector = selector
        self.ports = ports
    }
}

public struct Namespace: Hashable, Sendable {
    public var name: String
    public var labels: [String: String]

    public init(name: String, labels: [String: String] = [:]) {
        self.name = name
        self.labels = labels
    }
}

/// A Gateway of class `culvert-waypoint`. In file mode its instances are the workloads labelled with its name.
public struct Gateway: Hashable, Sendable {
    public var name: ObjectName
    public var labels: [String: String]

    public init(name: ObjectName, labels: [String: String] = [:]) {
        self.name = name
        self.labels = labels
    }
}
