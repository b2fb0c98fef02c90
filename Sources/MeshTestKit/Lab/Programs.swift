import Foundation

/// Finds the programs a lab and its workloads run.
public enum Programs {
    /// The Debian package each program comes with.
    static let packages = [
        "ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux", "sh": "dash", "nginx": "nginx-light",
        "redis-server": "redis-server", "redis-cli": "redis-tools", "iperf3": "iperf3", "curl": "curl",
    ]

    /// What the lab itself needs.
    static let ofTheLab = ["ip", "nsenter", "setpriv", "sh"]

    private static let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

    /// The path of a program: as given when it holds a slash, else from PATH, else from the usual folders (a root shell
    /// often lacks the sbin ones).
    public static func find(_ name: String) throws(LabError) -> String {
        if name.contains("/") { return name }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        for folder in path.split(separator: ":").map(String.init) + folders {
            let candidate = "\(folder)/\(name)"
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        let remedy = packages[name].map { "; on Debian: apt-get install \($0)" } ?? ""
        throw LabError(.missingProgram, "no '\(name)' on this machine\(remedy)")
    }

    /// Fails with every program of `names` that is missing, not just the first.
    public static func require(_ names: [String]) throws(LabError) {
        var missing: [String] = []
        for name in names {
            do { _ = try find(name) } catch { missing.append(name) }
        }
        guard !missing.isEmpty else { return }
        let wanted = Set(missing.compactMap { packages[$0] }).sorted().joined(separator: " ")
        throw LabError(
            .missingProgram,
            "missing on this machine: \(missing.joined(separator: ", "))"
                + (wanted.isEmpty ? "" : "; on Debian: apt-get install \(wanted)"))
    }
}
