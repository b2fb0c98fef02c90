internal import CBPF
internal import CMeshABI
internal import Glibc

/// The directory `<bpffs>/culvert/<node>/v<ABI>` that keeps maps and links alive without the daemon.
struct Pins: Sendable {
    let nodeDirectory: String
    let directory: String
    /// Holds the directories of all nodes.
    private let base: String
    private let bpffs: String

    private static let bpffsMagic: UInt64 = 0xcafe_4a11

    init(_ options: CaptureOptions) throws(KernelError) {
        let name = options.nodeName
        let letters = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."):
                true
            default: false
            }
        }
        guard !name.isEmpty, name.utf8.count <= 200, letters, !name.hasPrefix(".") else {
            throw KernelError(
                .badRequest, "naming the node", at: "\"\(name)\"", cause: "it is no host name",
                remedy: "use letters, digits, - and . (at most 200)")
        }
        // bpffs refuses dots in names; host names have no underscores, so this stays one to one.
        let safe = String(name.map { $0 == "." ? "_" : $0 })
        nodeDirectory = "\(options.bpffsPath)/culvert/\(safe)"
        directory = "\(nodeDirectory)/v\(CULVERT_ABI_VERSION)"
        base = "\(options.bpffsPath)/culvert"
        bpffs = options.bpffsPath
    }

    static func requireBPFFS(at path: String) throws(KernelError) {
        if Files.fileSystemType(path) != bpffsMagic {
            throw KernelError(
                .bpffsUnavailable, "looking for the bpf file system", at: path, cause: "no bpffs is mounted there",
                remedy: "mount -t bpf -o mode=0700 bpf \(path)")
        }
    }

    /// Refuses a bpffs in which others than root and this user could take the place of our pins.
    /// - Parameter owners: whose directory `culvert` may be.
    static func requireSafePlace(at bpffs: String, owners: Set<uid_t> = [geteuid()]) throws(KernelError) {
        // Where only the owner of a directory may rename it, as in a /tmp, a place that everybody may write is bad
        // enough for a warning (`isWritableByAll`): once ours is there it cannot be taken.
        if mode(of: bpffs).map({ $0 & 0o022 != 0 && $0 & S_ISVTX == 0 }) ?? false {
            throw KernelError(
                .pinRefused, "keeping pins", at: bpffs, cause: "others may rename and remove what is there",
                remedy: "chmod 0700 \(bpffs)")
        }
        try requireOwn("\(bpffs)/culvert", owners)
    }

    /// Whether every user may make directories in the bpffs: the default of mount(8), not of systemd.
    static func isWritableByAll(_ bpffs: String) -> Bool { mode(of: bpffs).map { $0 & 0o022 != 0 } ?? false }

    private static func mode(of path: String) -> mode_t? {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode : nil
    }

    private static func requireOwn(_ path: String, _ owners: Set<uid_t>) throws(KernelError) {
        guard let complaint = OwnDirectory.complaint(about: path, owners: owners) else { return }
        throw KernelError(
            .pinRefused, "keeping pins", at: path, cause: "\(complaint): it was not made by a node proxy of this user",
            remedy: "find out who made it, move it away, and chmod 0700 the bpffs")
    }

    /// What is there was made by a daemon of this user and nobody else could change it.
    func requireOwn() throws(KernelError) {
        for path in [base, nodeDirectory, directory] { try Self.requireOwn(path, [geteuid()]) }
    }

    /// The directories, for this user alone: whoever can open them could hold the node's lock.
    func make() throws(KernelError) {
        try Self.requireSafePlace(at: bpffs)
        for path in [base, nodeDirectory, directory] {
            let code = mkdir(path, 0o700) == 0 || errno == EEXIST ? 0 : -errno
            if code < 0 {
                throw KernelError(
                    .pinRefused, "making the pin directory", at: path, code: code,
                    remedy: "run as root with a writable bpffs")
            }
            try Self.requireOwn(path, [geteuid()])
            // One that is there may be readable by others.
            chmod(path, 0o700)
        }
    }

    func path(_ name: String) -> String { "\(directory)/\(name)" }
    func lookupLink(slot: UInt32) -> String { path(Self.lookupName(slot: slot)) }

    static func lookupName(slot: UInt32) -> String { "lookup_\(slot)" }
    /// The cgroup's hooks; what marks connections or gives out an alias comes first.
    static let hooks =
        ["connect4", "connect6", "getpeername4", "getpeername6", "sockops"]
        + ["connect4", "connect6", "sendmsg4", "sendmsg6", "peername4", "peername6", "recvmsg4", "recvmsg6"].map {
            "dns_\($0)"
        }
    static func isLink(_ name: String) -> Bool { hooks.contains(name) || name.hasPrefix("lookup_") }

    /// Every directory of the node, of whatever version.
    var versions: [String] { Files.names(in: nodeDirectory).map { "\(nodeDirectory)/\($0)" } }

    /// Removes all pins of the node.
    func remove() {
        Files.removeTree(nodeDirectory)
        rmdir(base)
    }

    /// Pins left by slots that are not in `slots`.
    func staleLookupLinks(keeping slots: Set<UInt32>) -> [String] {
        Files.names(in: directory).filter { name in
            guard name.hasPrefix("lookup_"), let slot = UInt32(name.dropFirst("lookup_".count)) else { return false }
            return !slots.contains(slot)
        }.map(path)
    }

    /// Pin directories of other ABI versions: a daemon before an upgrade left them.
    var otherVersions: [String] { versions.filter { $0 != directory } }
}
