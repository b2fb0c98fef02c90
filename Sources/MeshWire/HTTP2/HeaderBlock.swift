/// One header field. Names are lower case (RFC 9113 §8.2.1).
public struct HeaderField: Hashable, Sendable {
    public var name: String
    public var value: String
    /// The value is new every time: it is not worth a place in the compression tables (RFC 7541 §6.2.3).
    public var isVolatile: Bool

    public init(name: String, value: String, isVolatile: Bool = false) {
        self.name = name
        self.value = value
        self.isVolatile = isVolatile
    }
}

/// A header list as it arrived, in one piece of memory. Lookups compare bytes and allocate only what they return.
public struct HeaderBlock: Sendable {
    private struct Field {
        /// The name starts here, the value follows it.
        var start: UInt32
        var nameLength: UInt32
        var valueLength: UInt32
    }

    private var bytes: [UInt8] = []
    private var fields: [Field] = []
    private var listSize = 0
    /// The list was longer than allowed and is not complete.
    public private(set) var exceedsLimit = false

    public init() {}

    public init(_ list: [HeaderField]) {
        for var field in list {
            field.name.withUTF8 { name in
                field.value.withUTF8 { append(name: name, value: $0, limit: .max) }
            }
        }
    }

    mutating func append(name: UnsafeBufferPointer<UInt8>, value: UnsafeBufferPointer<UInt8>, limit: Int) {
        // RFC 9113 §6.5.2: 32 bytes of overhead a field. Once over, nothing more is kept.
        listSize += name.count + value.count + 32
        if exceedsLimit || listSize > limit {
            exceedsLimit = true
            return
        }
        fields.append(
            Field(
                start: UInt32(bytes.count), nameLength: UInt32(name.count), valueLength: UInt32(value.count)))
        bytes.append(contentsOf: name)
        bytes.append(contentsOf: value)
    }

    mutating func clear() {
        bytes.removeAll(keepingCapacity: true)
        fields.removeAll(keepingCapacity: true)
        listSize = 0
        exceedsLimit = false
    }

    private func nameRange(_ field: Field) -> Range<Int> {
        Int(field.start)..<Int(field.start + field.nameLength)
    }

    private func valueRange(_ field: Field) -> Range<Int> {
        let start = Int(field.start + field.nameLength)
        return start..<(start + Int(field.valueLength))
    }

    private func index(of name: StaticString, from start: Int = 0) -> Int? {
        for index in start..<fields.count {
            let field = fields[index]
            guard Int(field.nameLength) == name.utf8CodeUnitCount else { continue }
            let isSame = name.withUTF8Buffer { wanted in bytes[nameRange(field)].elementsEqual(wanted) }
            if isSame { return index }
        }
        return nil
    }

    /// The first value under `name` as bytes.
    public func withValue<R>(_ name: StaticString, _ body: (UnsafeBufferPointer<UInt8>) -> R) -> R? {
        guard let index = index(of: name) else { return nil }
        let range = valueRange(fields[index])
        return bytes.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[range])) }
    }

    /// The first value under `name`. Bytes that are no UTF-8 are replaced.
    public func value(_ name: StaticString) -> String? {
        withValue(name) { String(decoding: $0, as: UTF8.self) }
    }

    /// All values under `name`, in order.
    public func values(_ name: StaticString) -> [String] {
        var found: [String] = []
        var next = 0
        while let index = index(of: name, from: next) {
            found.append(String(decoding: bytes[valueRange(fields[index])], as: UTF8.self))
            next = index + 1
        }
        return found
    }

    public func contains(_ name: StaticString) -> Bool { index(of: name) != nil }
}

extension HeaderBlock: RandomAccessCollection {
    public var startIndex: Int { 0 }
    public var endIndex: Int { fields.count }

    public subscript(position: Int) -> HeaderField {
        let field = fields[position]
        return HeaderField(
            name: String(decoding: bytes[nameRange(field)], as: UTF8.self),
            value: String(decoding: bytes[valueRange(field)], as: UTF8.self))
    }
}
