import Foundation

/// A text file that a process appends to.
public struct LogFile: Sendable {
    public let path: String

    public init(path: String) {
        self.path = path
    }

    /// How long the file is now: pass it as `after` to see only what comes later.
    public var end: UInt64 {
        guard let attributes = try? FileManager.default.attributesOfItem(atPath: path) else { return 0 }
        return (attributes[.size] as? NSNumber)?.uint64Value ?? 0
    }

    /// Whole lines from an offset on; a file that does not exist yet has none.
    public func lines(after offset: UInt64 = 0) -> [String] {
        guard let handle = FileHandle(forReadingAtPath: path) else { return [] }
        defer { try? handle.close() }
        guard (try? handle.seek(toOffset: offset)) != nil, let data = try? handle.readToEnd() else { return [] }
        let text = String(decoding: data, as: UTF8.self)
        let whole = text.lastIndex(of: "\n").map { text[..<$0] } ?? ""
        return whole.split(separator: "\n").map(String.init)
    }

    /// The first line from `offset` on that holds every one of `words`. Escaped slashes of JSON are undone before.
    public func line(containing words: [String], after offset: UInt64 = 0) -> String? {
        lines(after: offset).lazy.map { $0.replacingOccurrences(of: "\\/", with: "/") }
            .first { line in words.allSatisfy(line.contains) }
    }

    /// Waits for such a line.
    public func waitForLine(
        containing words: [String], after offset: UInt64 = 0, within limit: Duration = .seconds(10)
    ) async throws -> String {
        let name = URL(fileURLWithPath: path).lastPathComponent
        return try await eventually("a line with \(words.joined(separator: " and ")) in \(name)", within: limit) {
            line(containing: words, after: offset)
        }
    }

    /// The last lines, for error messages.
    public func tail(_ count: Int = 15) -> String {
        lines().suffix(count).joined(separator: "\n")
    }
}
