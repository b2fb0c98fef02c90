/// Writes a head into a buffer of fixed size. Once something did not fit, `overflowed` stays true and nothing more is
/// written: the caller asks once, at the end.
struct HeadWriter {
    private let target: UnsafeMutableRawBufferPointer
    private(set) var count = 0
    private(set) var overflowed = false

    init(_ target: UnsafeMutableRawBufferPointer) {
        self.target = target
    }

    mutating func put(_ text: StaticString) {
        put(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func put(_ text: String) {
        var text = text
        text.withUTF8 { put(UnsafeRawBufferPointer($0)) }
    }

    mutating func put(_ slice: HTTPSlice, of bytes: Span<UInt8>) {
        bytes.withUnsafeBytes { put(UnsafeRawBufferPointer(rebasing: $0[slice.range])) }
    }

    mutating func put(_ number: UInt64) {
        var digits: InlineArray<20, UInt8> = .init(repeating: 0)
        var first = 20
        var rest = number
        repeat {
            first -= 1
            digits[first] = 0x30 + UInt8(rest % 10)
            rest /= 10
        } while rest > 0
        for index in first..<20 { put(byte: digits[index]) }
    }

    mutating func put(byte: UInt8) {
        guard !overflowed, count < target.count else {
            overflowed = true
            return
        }
        target[count] = byte
        count += 1
    }

    mutating func put(_ bytes: UnsafeRawBufferPointer) {
        guard !overflowed, bytes.count <= target.count - count else {
            overflowed = true
            return
        }
        if bytes.isEmpty { return }
        UnsafeMutableRawBufferPointer(rebasing: target[count..<count + bytes.count]).copyMemory(from: bytes)
        count += bytes.count
    }

    mutating func field(_ name: StaticString, _ value: StaticString) {
        put(name)
        put(": ")
        put(value)
        put("\r\n")
    }

    mutating func field(_ name: StaticString, _ value: String) {
        put(name)
        put(": ")
        put(value)
        put("\r\n")
    }

    mutating func field(_ field: HTTPHead.Field, of bytes: Span<UInt8>) {
        put(field.name, of: bytes)
        put(": ")
        put(field.value, of: bytes)
        put("\r\n")
    }

    mutating func framing(_ framing: BodyFraming) {
        switch framing {
        case .none, .untilClose: break
        case .length(let length):
            put("content-length: ")
            put(length)
            put("\r\n")
        case .chunked: field("transfer-encoding", "chunked")
        }
    }
}
