import Glibc
public import Logging

/// Writes the daemon's own log in the same shape as the access log, one `write(2)` a line.
///
///     LoggingSystem.bootstrap { MeshLogHandler(scope: $0, levels: levels, format: .text) }
public struct MeshLogHandler: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var metadataProvider: Logger.MetadataProvider?
    private let scope: String
    private let levels: LogLevels
    private let format: LogFormat
    private let fileDescriptor: Int32
    /// Set on one logger by hand: wins over the shared levels.
    private var ownLevel: Logger.Level?

    /// `fileDescriptor`: standard error unless told otherwise.
    public init(scope: String, levels: LogLevels, format: LogFormat, fileDescriptor: Int32 = 2) {
        self.scope = scope
        self.levels = levels
        self.format = format
        self.fileDescriptor = fileDescriptor
    }

    public var logLevel: Logger.Level {
        get { ownLevel ?? levels.level(of: scope) ?? .critical }
        set { ownLevel = newValue }
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        guard ownLevel != nil || levels.level(of: scope) != nil else { return }
        var fields = metadata
        if let provided = metadataProvider?.get() { fields.merge(provided) { own, _ in own } }
        if let more = event.metadata { fields.merge(more) { _, new in new } }
        let line = encode(event.level, event.message, fields, at: .now())
        // A log line that cannot be written has nobody left to tell.
        _ = write(fileDescriptor, line.written.baseAddress, line.written.count)
    }

    func encode(
        _ level: Logger.Level, _ message: Logger.Message, _ fields: Logger.Metadata, at time: Timestamp
    ) -> LineEncoder {
        var line = LineEncoder(format)
        line.begin(time: time, level: level.word, scope: scope, message: message.description)
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            line.field(named: name, value.description)
        }
        line.end()
        return line
    }
}
