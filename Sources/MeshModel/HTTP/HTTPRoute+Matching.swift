extension HTTPRoute.Match {
    func matches(_ request: HTTPRequestFacts) -> Bool {
        if let method, !method.utf8.elementsEqual(request.method.utf8) { return false }
        guard path.matches(request.path) else { return false }
        for header in headers where !header.matches(request.headers) { return false }
        return true
    }
}

extension HTTPRoute.PathMatch {
    func matches(_ path: String) -> Bool {
        switch self {
        case .exact(let text): return path.utf8.elementsEqual(text.utf8)
        case .prefix(let text):
            // A slash at the end of the prefix says nothing: `/a/` is `/a`.
            let prefix = text.utf8.last == UInt8(ascii: "/") ? text.utf8.dropLast() : text.utf8[...]
            guard path.utf8.starts(with: prefix) else { return false }
            let rest = path.utf8.dropFirst(prefix.count)
            return prefix.isEmpty || rest.isEmpty || rest.first == UInt8(ascii: "/")
        }
    }
}

extension HTTPRoute.HeaderMatch {
    /// A field that comes several times is its values joined with commas (RFC 9110 §5.2).
    func matches(_ headers: [HTTPRequestFacts.Header]) -> Bool {
        var joined: String?
        for header in headers where header.name == name {
            joined = joined.map { "\($0),\(header.value)" } ?? header.value
        }
        guard let joined else { return false }
        return joined.utf8.elementsEqual(value.utf8)
    }
}

extension HTTPRoute {
    /// How closely the route's hosts name `host` (lower-case, no port): nil not at all, 0 any host, else more for more
    /// characters, and every exact name above every wildcard. A wildcard stands for one or more whole labels.
    func hostSpecificity(_ host: String) -> Int? {
        if hostnames.isEmpty { return 0 }
        var best: Int?
        for name in hostnames {
            let length = name.utf8.count
            if name.utf8.first == UInt8(ascii: "*") {
                let tail = name.utf8.dropFirst()
                let matches = host.utf8.count > tail.count && host.utf8.suffix(tail.count).elementsEqual(tail)
                if matches { best = max(best ?? 0, length) }
            } else if name.utf8.elementsEqual(host.utf8) {
                best = max(best ?? 0, length + 1 << 16)
            }
        }
        return best
    }
}

/// The host without port, in lower case, without the dot of a fully qualified name.
func canonicalHost(_ authority: String) -> String {
    var host = authority[...]
    if host.utf8.first == UInt8(ascii: "[") {
        if let end = host.utf8.firstIndex(of: UInt8(ascii: "]")) { host = host[host.startIndex...end] }
    } else if let colon = host.utf8.firstIndex(of: UInt8(ascii: ":")) {
        host = host[..<colon]
    }
    if host.utf8.last == UInt8(ascii: ".") { host = host.dropLast() }
    return host.lowercased()
}
