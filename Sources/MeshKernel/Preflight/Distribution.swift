internal import Glibc

/// Whose kernel and packages this machine has: chooses which remedy a report shows.
enum Distribution: String, Sendable, CaseIterable {
    case debian, ubuntu, rhel, amazon, flatcar, talos, bottlerocket, cos, other

    /// The running kernel speaks for the host even from inside a container, whose os-release is the image's; so it is
    /// asked first. `version` is that of uname(2): `#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1`.
    static func recognise(release: String, version: String, osRelease: OSRelease) -> Distribution {
        let marks: [(String, Distribution)] = [
            ("-talos", .talos), ("-flatcar", .flatcar), ("amzn", .amazon), (".el7", .rhel), (".el8", .rhel),
            (".el9", .rhel), (".el10", .rhel), (".fc", .rhel),
        ]
        let words = version.split(separator: " ")
        if osRelease.id != "bottlerocket", let mark = marks.first(where: { release.contains($0.0) }) { return mark.1 }
        if version.contains("-Ubuntu") { return .ubuntu }
        if words.contains("Debian") { return .debian }
        for name in [osRelease.id] + osRelease.like {
            switch name {
            case "debian", "ubuntu", "flatcar", "talos", "bottlerocket", "cos": return Distribution(rawValue: name)!
            case "rhel", "fedora", "centos", "rocky", "almalinux", "ol": return .rhel
            case "amzn": return .amazon
            default: continue
            }
        }
        return .other
    }

    /// No package manager on the host: what is missing comes with another image of the system.
    var isImmutable: Bool {
        switch self {
        case .flatcar, .talos, .bottlerocket, .cos: true
        default: false
        }
    }
}

/// os-release(5), as far as a remedy depends on it.
struct OSRelease: Hashable, Sendable {
    var id = ""
    var like: [String] = []
    var prettyName = ""

    static func read() -> OSRelease {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let text = Files.read(path).value { return OSRelease(parsing: text) }
        }
        return OSRelease()
    }

    init() {}

    init(parsing text: String) {
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            let value = line[line.index(after: equals)...].filter { $0 != "\"" && $0 != "'" }
            switch line[..<equals] {
            case "ID": id = value
            case "ID_LIKE": like = value.split(separator: " ").map(String.init)
            case "PRETTY_NAME": prettyName = value
            default: continue
            }
        }
    }
}

/// `major.minor.patch` of a release such as `6.1.0-18-cloud-amd64`. A hint only: distributions carry features back.
struct KernelVersion: Comparable, Sendable, CustomStringConvertible {
    let major: Int
    let minor: Int
    let patch: Int

    init(_ major: Int, _ minor: Int, _ patch: Int = 0) { (self.major, self.minor, self.patch) = (major, minor, patch) }

    /// - Returns: nil when the text does not begin with two numbers.
    init?(_ release: String) {
        let numbers = release.prefix { $0.isNumber || $0 == "." }.split(separator: ".").compactMap { Int($0) }
        guard numbers.count >= 2 else { return nil }
        self.init(numbers[0], numbers[1], numbers.count > 2 ? numbers[2] : 0)
    }

    /// The mainline version that a distribution's kernel is made from, which its release does not always say: Debian's
    /// is in uname(2)'s `version` (`#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)`), Ubuntu's in
    /// /proc/version_signature (`Ubuntu 6.8.0-45.45-generic 6.8.12`).
    init?(release: String, version: String, signature: String) {
        let words = version.split(separator: " ")
        let debian = words.firstIndex(of: "Debian").map { words[words.index(after: $0)...].first ?? "" } ?? ""
        let ubuntu = signature.split(whereSeparator: \.isWhitespace)
        if let known = KernelVersion(String(debian)) {
            self = known
        } else if ubuntu.first == "Ubuntu", let known = ubuntu.last.flatMap({ KernelVersion(String($0)) }) {
            self = known
        } else if let known = KernelVersion(release) {
            self = known
        } else {
            return nil
        }
    }

    static func < (a: Self, b: Self) -> Bool { (a.major, a.minor, a.patch) < (b.major, b.minor, b.patch) }

    var description: String { "\(major).\(minor).\(patch)" }

    /// Whether a fix is in this version, given the first release that has it in each stable series and, last, the first
    /// series that was born with it.
    func includes(fixedIn releases: [KernelVersion]) -> Bool {
        guard let newest = releases.max() else { return true }
        if self >= newest { return true }
        return releases.contains { $0.major == major && $0.minor == minor && self >= $0 }
    }
}
