import Glibc
import Hummingbird
import HummingbirdCore
public import Logging
import NIOCore
import Synchronization

/// Why the admin server could not start: which port, and what to look at.
public struct AdminError: Error, Hashable, CustomStringConvertible {
    /// `admin`, `metrics` or `readiness`.
    public let listener: String
    public let address: String
    public let port: Int
    /// The system's words.
    public let cause: String

    public var description: String {
        "cannot listen on \(address) port \(port) for \(listener): \(cause); "
            + "see who has it with: ss -ltnp 'sport = :\(port)'"
    }
}

/// The daemon's own three listeners, in the network namespace the process started in: admin on localhost, metrics and
/// readiness on every address.
public struct AdminServer: Sendable {
    /// 0: any free port.
    public struct Ports: Hashable, Sendable {
        public var admin: Int
        public var metrics: Int
        public var readiness: Int

        public init(admin: Int = 15000, metrics: Int = 15020, readiness: Int = 15021) {
            self.admin = admin
            self.metrics = metrics
            self.readiness = readiness
        }
    }

    enum Role: String, CaseIterable {
        case admin
        case metrics
        case readiness
    }

    static let localhost = "127.0.0.1"
    /// Connections that may be open at one listener; further ones wait in the backlog.
    private static let maximumConnections = 64
    private static let idleTimeout = TimeAmount.seconds(30)

    private let ports: Ports
    private let sources: AdminSources
    private let logger: Logger
    private let onListening: @Sendable (Ports) -> Void

    /// `onListening` is called once, when all three listen, with the ports they really have.
    public init(
        ports: Ports = Ports(), sources: AdminSources, logger: Logger,
        onListening: @escaping @Sendable (Ports) -> Void = { _ in }
    ) {
        self.ports = ports
        self.sources = sources
        self.logger = logger
        self.onListening = onListening
    }

    /// Serves until the task is cancelled or a graceful shutdown begins. Throws `AdminError` when a port cannot be had.
    public func run() async throws {
        let bound = BoundPorts(onListening)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for role in Role.allCases {
                group.addTask { try await serve(role, bound) }
            }
            // The first that ends, whatever the reason, ends all.
            do {
                try await group.next()
                group.cancelAll()
                try await group.waitForAll()
            } catch {
                group.cancelAll()
                throw error
            }
        }
    }

    private func serve(_ role: Role, _ bound: BoundPorts) async throws {
        let (address, port) = endpoint(of: role)
        // Its failures reach us as errors; what is left is a line for every connection that a cancellation ends.
        var quiet = logger
        quiet.logLevel = .critical
        let application = Application(
            responder: AdminResponder(role: role, sources: sources),
            server: .http1(configuration: HTTP1Channel.Configuration(idleTimeout: Self.idleTimeout)),
            configuration: ApplicationConfiguration(
                address: .hostname(address, port: port),
                availableConnectionsDelegate: .maximum(Self.maximumConnections, logger: quiet)),
            onServerRunning: { channel in bound.insert(role, channel.localAddress?.port ?? port) }, logger: quiet)
        do {
            try await application.run()
        } catch {
            if Task.isCancelled { return }
            if bound.contains(role) { throw error }
            let cause = (error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(error)"
            throw AdminError(listener: role.rawValue, address: address, port: port, cause: cause)
        }
    }

    private func endpoint(of role: Role) -> (address: String, port: Int) {
        switch role {
        case .admin: (Self.localhost, ports.admin)
        case .metrics: (Self.wildcard, ports.metrics)
        case .readiness: (Self.wildcard, ports.readiness)
        }
    }

    /// One socket for both families where the kernel has IPv6 and lets a socket serve both.
    private static var wildcard: String {
        let hasIPv6 = access("/proc/net/if_inet6", F_OK) == 0
        return hasIPv6 && !readsOne("/proc/sys/net/ipv6/bindv6only") ? "::" : "0.0.0.0"
    }

    private static func readsOne(_ path: String) -> Bool {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        var byte: UInt8 = 0
        return read(file, &byte, 1) == 1 && byte == UInt8(ascii: "1")
    }
}

/// Collects the ports until all listeners have one.
private final class BoundPorts: Sendable {
    private let bound = Mutex<[AdminServer.Role: Int]>([:])
    private let onComplete: @Sendable (AdminServer.Ports) -> Void

    init(_ onComplete: @escaping @Sendable (AdminServer.Ports) -> Void) {
        self.onComplete = onComplete
    }

    func insert(_ role: AdminServer.Role, _ port: Int) {
        let ports: AdminServer.Ports? = bound.withLock { bound in
            bound[role] = port
            guard let admin = bound[.admin], let metrics = bound[.metrics], let readiness = bound[.readiness] else {
                return nil
            }
            return AdminServer.Ports(admin: admin, metrics: metrics, readiness: readiness)
        }
        if let ports { onComplete(ports) }
    }

    func contains(_ role: AdminServer.Role) -> Bool {
        bound.withLock { $0[role] != nil }
    }
}
