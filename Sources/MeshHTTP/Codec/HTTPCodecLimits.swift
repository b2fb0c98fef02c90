internal import MeshModel

/// Bounds of the codec. The first two come from `Limits`; the rest are fixed by what real clients and servers send.
struct HTTPCodecLimits {
    /// A whole head, start line to empty line: 431 (a response: 502).
    var headBytes = 64 * 1024
    /// Field lines of a head: 431.
    var fieldCount = 100
    /// A request target: 414.
    var targetBytes = 8 * 1024
    /// A method name: 400.
    var methodBytes = 32
    /// Names listed in `Connection`: 400. Each is compared with every field.
    var connectionOptions = 64
    /// A line with a chunk's size and its extensions: 400.
    var chunkLineBytes = 1024
    /// Chunk extensions of one body, which are read and dropped: 400. Without it a peer could send a thousand bytes of
    /// extension for each byte of content.
    var chunkExtensionBytes = 16 * 1024
    /// The trailer section of one body: 400.
    var trailerBytes = 8 * 1024
    var trailerCount = 32

    init() {}

    /// `room`: bytes of the buffer a head must fit into.
    init(_ limits: Limits, room: Int) {
        headBytes = min(limits.httpHeaderBytes, room)
        fieldCount = limits.httpHeaderCount
    }
}
