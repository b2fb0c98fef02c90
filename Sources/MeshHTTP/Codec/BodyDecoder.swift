/// # Bodies, checked and made canonical in place
///
/// A proxy has to understand a body's framing to find its end, but it need not copy the content. The decoder walks over
/// the bytes that arrived and leaves, in the same buffer, exactly the bytes to send on:
///
///     start        write          read               end
///       |  ready     |  (gap)       |  not seen yet    |
///
/// Everything it takes away (chunk extensions, leading zeros, trailer fields that must not pass, all chunk framing for
/// a peer of HTTP/1.0) makes the text shorter and nothing makes it longer, so `write` never passes `read`. In the
/// usual case nothing is taken away, `write == read`, and not one byte moves.
///
/// What is ready is judged: chunk sizes are digits we understood, lines end with CRLF, trailers are fields. So what we
/// send on cannot be read differently by the next parser (RFC 9112 §11.2).
struct BodyDecoder {
    enum Status: Equatable {
        case needMore
        case complete
        case failed(HTTPParseError)
    }

    private enum State: Equatable {
        case complete
        case length(UInt64)
        case untilClose
        case chunkLine
        case chunkData(UInt64)
        case chunkEnd
        case trailer
    }

    private var state: State
    private let limits: HTTPCodecLimits
    private let keepsFraming: Bool
    private var extensionBytes = 0
    private var trailerBytes = 0
    private var trailerCount = 0
    /// Bytes of content so far, without framing.
    private(set) var contentBytes: UInt64 = 0

    /// `keepsFraming` false: a chunked body comes out as its bare content, for a peer that reads until close.
    init(_ framing: BodyFraming, keepsFraming: Bool = true, limits: HTTPCodecLimits) {
        self.limits = limits
        self.keepsFraming = keepsFraming
        switch framing {
        case .none: state = .complete
        case .length(let length): state = length == 0 ? .complete : .length(length)
        case .chunked: state = .chunkLine
        case .untilClose: state = .untilClose
        }
    }

    var isComplete: Bool { state == .complete }

    /// The peer finished its direction: true where that ends the body, false where the body was cut off.
    mutating func endOfStream() -> Bool {
        if state == .untilClose { state = .complete }
        return isComplete
    }

    /// Advances over `base[read..<end]`, leaving what is to be sent on at `write`.
    mutating func decode(
        _ base: UnsafeMutableRawBufferPointer, write: inout Int, read: inout Int, end: Int
    ) -> Status {
        precondition(write >= 0 && write <= read && read <= end && end <= base.count)
        var window = Window(base: base, write: write, read: read, end: end)
        defer {
            write = window.write
            read = window.read
        }
        do throws(HTTPParseError) {
            while try step(&window) {}
        } catch {
            return .failed(error)
        }
        return isComplete ? .complete : .needMore
    }

    /// False when the body is complete or more bytes are needed.
    private mutating func step(_ window: inout Window) throws(HTTPParseError) -> Bool {
        switch state {
        case .complete:
            return false
        case .length(let left):
            let taken = take(left, &window)
            state = taken == left ? .complete : .length(left - taken)
            return false
        case .untilClose:
            _ = take(.max, &window)
            return false
        case .chunkLine:
            return try chunkLine(&window)
        case .chunkData(let left):
            let taken = take(left, &window)
            state = taken == left ? .chunkEnd : .chunkData(left - taken)
            return taken == left
        case .chunkEnd:
            return try chunkEnd(&window)
        case .trailer:
            return try trailerLine(&window)
        }
    }

    private mutating func take(_ wanted: UInt64, _ window: inout Window) -> UInt64 {
        let taken = min(wanted, UInt64(window.available))
        window.keep(Int(taken))
        contentBytes += taken
        return taken
    }

    /// `chunk-size [ chunk-ext ] CRLF` (RFC 9112 §7.1).
    private mutating func chunkLine(_ window: inout Window) throws(HTTPParseError) -> Bool {
        let lineEnd = window.lineFeed()
        let length = lineEnd.map { $0 + 1 - window.read } ?? window.available
        if length > limits.chunkLineBytes { throw .chunkExtensionTooLarge }
        guard let lineEnd else { return false }
        guard length >= 2, window[lineEnd - 1] == HTTPCharacters.carriageReturn else { throw .malformedLineEnd }

        var size: UInt64 = 0
        var index = window.read
        while let digit = HTTPCharacters.hexValue(window[index]) {
            // 15 digits are 2^60: enough for anybody, and no sum overflows.
            guard index - window.read < 15 else { throw .chunkTooLarge }
            size = size << 4 | UInt64(digit)
            index += 1
        }
        let digits = index - window.read
        guard digits > 0 else { throw .malformedChunk }
        if index < lineEnd - 1 { try checkExtension(window, from: index, to: lineEnd - 1) }

        let isCanonical = index == lineEnd - 1 && (digits == 1 || window[window.read] != UInt8(ascii: "0"))
        if !keepsFraming {
            window.drop(length)
        } else if isCanonical {
            window.keep(length)
        } else {
            window.drop(length)
            window.put(hexadecimal: size)
            window.putLineEnd()
        }
        state = size == 0 ? .trailer : .chunkData(size)
        return true
    }

    private mutating func checkExtension(_ window: Window, from start: Int, to end: Int) throws(HTTPParseError) {
        extensionBytes += end - start
        if extensionBytes > limits.chunkExtensionBytes { throw .chunkExtensionTooLarge }
        var index = start
        while index < end, HTTPCharacters.isBlank(window[index]) { index += 1 }
        guard index < end, window[index] == UInt8(ascii: ";") else { throw .malformedChunk }
        for position in index..<end where !HTTPCharacters.isFieldContent(window[position]) { throw .malformedChunk }
    }

    private mutating func chunkEnd(_ window: inout Window) throws(HTTPParseError) -> Bool {
        guard window.available > 0 else { return false }
        guard window[window.read] == HTTPCharacters.carriageReturn else { throw .malformedChunk }
        guard window.available > 1 else { return false }
        guard window[window.read + 1] == HTTPCharacters.lineFeed else { throw .malformedChunk }
        if keepsFraming { window.keep(2) } else { window.drop(2) }
        state = .chunkLine
        return true
    }

    private mutating func trailerLine(_ window: inout Window) throws(HTTPParseError) -> Bool {
        let lineEnd = window.lineFeed()
        let length = lineEnd.map { $0 + 1 - window.read } ?? window.available
        if trailerBytes + length > limits.trailerBytes { throw .trailerTooLarge }
        guard let lineEnd else { return false }
        guard length >= 2, window[lineEnd - 1] == HTTPCharacters.carriageReturn else { throw .malformedLineEnd }
        if length == 2 {
            if keepsFraming { window.keep(2) } else { window.drop(2) }
            state = .complete
            return false
        }
        trailerBytes += length
        trailerCount += 1
        if trailerCount > limits.trailerCount { throw .trailerTooLarge }
        let passes = try window.withSpan(length) { bytes throws(HTTPParseError) in
            try TrailerFields.mayPass(HTTPSlice(0, length - 2), bytes)
        }
        if keepsFraming && passes { window.keep(length) } else { window.drop(length) }
        return true
    }
}

/// The buffer while one `decode` walks over it. All unsafe access of the decoder is here; every index is checked.
private struct Window {
    let base: UnsafeMutableRawBufferPointer
    var write: Int
    var read: Int
    let end: Int

    var available: Int { end - read }

    subscript(index: Int) -> UInt8 {
        precondition(index >= read && index < end)
        return base[index]
    }

    func lineFeed() -> Int? {
        var index = read
        while index < end {
            if base[index] == HTTPCharacters.lineFeed { return index }
            index += 1
        }
        return nil
    }

    func withSpan<R>(_ count: Int, _ body: (Span<UInt8>) throws(HTTPParseError) -> R) throws(HTTPParseError) -> R {
        precondition(count <= available)
        let bytes = UnsafeRawBufferPointer(rebasing: base[read..<read + count])
        return try body(bytes.assumingMemoryBound(to: UInt8.self).span)
    }

    mutating func keep(_ count: Int) {
        precondition(count <= available)
        if count > 0, write != read {
            UnsafeMutableRawBufferPointer(rebasing: base[write..<write + count])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: base[read..<read + count]))
        }
        write += count
        read += count
    }

    mutating func drop(_ count: Int) {
        precondition(count <= available)
        read += count
    }

    /// Fewer digits than were dropped before.
    mutating func put(hexadecimal value: UInt64) {
        var shift = max(0, (63 - value.leadingZeroBitCount) / 4 * 4)
        while shift >= 0 {
            let digit = UInt8(value >> UInt64(shift) & 15)
            put(digit < 10 ? digit + 0x30 : digit - 10 + 0x61)
            shift -= 4
        }
    }

    mutating func putLineEnd() {
        put(HTTPCharacters.carriageReturn)
        put(HTTPCharacters.lineFeed)
    }

    private mutating func put(_ byte: UInt8) {
        precondition(write < read)
        base[write] = byte
        write += 1
    }
}

/// Trailer sections (RFC 9110 §6.5). Many parsers merge them into the header section, so what must not come late from
/// a peer is dropped: framing, routing, request modifiers, authentication, and what only we may say.
enum TrailerFields {
    static func mayPass(_ line: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) -> Bool {
        let field: (name: HTTPSlice, value: HTTPSlice)
        do throws(HTTPParseError) {
            field = try HTTPFieldLine.split(line, bytes)
        } catch {
            throw error == .malformedLineEnd ? error : .malformedTrailer
        }
        guard HTTPFieldLine.kind(of: field.name, bytes) == .other else { return false }
        for prefix in Self.forbiddenPrefixes where field.name.hasPrefix(prefix, in: bytes) { return false }
        return true
    }

    private static let forbiddenPrefixes: [StaticString] = [
        "accept", "age", "authorization", "cache-control", "content-", "cookie", "date", "forwarded", "if-", "location",
        "max-forwards", "pragma", "proxy-", "range", "sec-", "set-cookie", "trailer", "www-authenticate",
        "x-forwarded-",
        "x_forwarded_",
    ]
}
