import Foundation

/// How a program is started in a lab.
public struct Launch: Sendable {
    public var program: String
    public var arguments: [String]
    /// Where: its network namespace and, unless `cgroup` says otherwise, its cgroup. nil: our own.
    public var host: LabHost?
    /// The cgroup folder, made when it is not there.
    public var cgroup: String?
    /// Drop to this user, with no supplementary groups, no capabilities and no way back.
    public var user: String?
    /// Added to a small environment of our own.
    public var environment: [String: String]
    /// The file on standard input.
    public var input: String

    public init(
        _ program: String, _ arguments: [String] = [], in host: LabHost? = nil, cgroup: String? = nil,
        user: String? = nil, environment: [String: String] = [:], input: String = "/dev/null"
    ) {
        self.program = program
        self.arguments = arguments
        self.host = host
        self.cgroup = cgroup
        self.user = user
        self.environment = environment
        self.input = input
    }

    /// The whole command: enter the namespace, then the cgroup (before any socket exists, since the connect hooks look
    /// at it), then drop rights, then become the program. Every link execs the next, so one pid serves all.
    func commandLine(diesWithUs: Bool, cgroup group: String?) throws(LabError) -> [String] {
        var words: [String] = []
        if let host {
            // Not `ip netns exec`: it mounts a new /sys, which hides cgroup2 and bpffs.
            words += [try Programs.find("nsenter"), "--net=\(host.namespacePath)"]
        }
        if let group {
            words += [try Programs.find("sh"), "-c", #"echo $$ >"$0/cgroup.procs" && exec "$@""#, group]
        }
        if diesWithUs || user != nil {
            words.append(try Programs.find("setpriv"))
            // setpriv sets it after the change of user, which would clear it.
            if diesWithUs { words += ["--pdeathsig", "KILL"] }
            if let user {
                words += ["--reuid", user, "--regid", String(try Self.group(of: user)), "--clear-groups"]
                words += ["--inh-caps", "-all", "--bounding-set", "-all", "--no-new-privs"]
            }
            words.append("--")
        }
        return words + [try Programs.find(program)] + arguments
    }

    private static func group(of user: String) throws(LabError) -> UInt32 {
        guard let entry = getpwnam(user) else { throw LabError(.setUp, "this machine has no user '\(user)'") }
        return entry.pointee.pw_gid
    }

    var environmentList: [String] {
        let base = [
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/",
        ]
        return base.merging(environment) { $1 }.map { "\($0)=\($1)" }.sorted()
    }
}
