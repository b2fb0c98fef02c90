internal import MeshModel

/// A TCP connection that was there before the rules.
struct LiveConnection: Hashable, Sendable {
    var local: IPAddress
    var localPort: UInt16
    var remote: IPAddress
    var remotePort: UInt16

    /// Those of the calling thread's namespace, without listeners and without what stays on loopback.
    static func all() -> [LiveConnection] {
        ["tcp", "tcp6"].flatMap { name in
            // Without IPv6 there is no tcp6.
            (Files.read("/proc/thread-self/net/\(name)", limit: 64 << 20).value ?? "").split(separator: "\n")
                .dropFirst()
                .compactMap(LiveConnection.init(line:))
        }
    }

    /// A line of /proc/net/tcp (proc(5)): `sl local remote state …`, addresses as 32-bit words in the machine's order.
    init?(line: Substring) {
        let fields = line.split(separator: " ")
        let listening: Substring = "0A"
        guard fields.count > 3, fields[3] != listening, let (local, localPort) = Self.end(fields[1]),
            let (remote, remotePort) = Self.end(fields[2]), !local.isLoopback
        else { return nil }
        self.init(local: local, localPort: localPort, remote: remote, remotePort: remotePort)
    }

    init(local: IPAddress, localPort: UInt16, remote: IPAddress, remotePort: UInt16) {
        self.local = local
        self.localPort = localPort
        self.remote = remote
        self.remotePort = remotePort
    }

    private static func end(_ field: Substring) -> (IPAddress, UInt16)? {
        let parts = field.split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1], radix: 16) else { return nil }
        let digits = Array(parts[0])
        let words = stride(from: 0, to: digits.count, by: 8).compactMap { start in
            UInt32(String(digits[start..<min(start + 8, digits.count)]), radix: 16).map { UInt32(bigEndian: $0) }
        }
        switch words.count {
        case 1: return (IPAddress(v4: words[0]), port)
        case 4:
            let high = UInt64(words[0]) << 32 | UInt64(words[1])
            let low = UInt64(words[2]) << 32 | UInt64(words[3])
            if high == 0 && low >> 32 == 0xffff { return (IPAddress(v4: words[3]), port) }
            return (IPAddress(high: high, low: low), port)
        default: return nil
        }
    }
}
