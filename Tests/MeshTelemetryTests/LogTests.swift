import Logging
import Testing

@testable import MeshTelemetry

@Suite("Log levels and the daemon's log")
struct LogTests {
    @Test("Levels are set for all scopes or for one, in both spellings, and reset")
    func levels() throws {
        let levels = LogLevels(.info)
        #expect(levels.description == "info")
        try levels.apply("warning,tls=debug,proxy:off")
        #expect(levels.description == "warn,proxy=off,tls=debug")
        #expect(levels.level(of: "tls") == .debug && levels.level(of: "proxy") == nil)
        #expect(levels.level(of: "other") == .warning)
        try levels.apply("critical")
        #expect(levels.level(of: "other") == .error && levels.level(of: "tls") == .debug)
        levels.reset()
        #expect(levels.description == "info")
    }

    @Test(
        "A bad level is refused, and nothing of the list is applied",
        arguments: [
            "", "loud", "debug,", "=debug", "tls=", "debug,tls=loud", "tls=debug=x",
        ])
    func badLevels(_ text: String) {
        let levels = LogLevels(.info)
        #expect(throws: LogLevels.Refusal.self) { try levels.apply(text) }
        #expect(levels.description == "info")
    }

    @Test("Handlers follow the shared levels at once")
    func handler() throws {
        let levels = LogLevels(.info)
        var handler = MeshLogHandler(scope: "tls", levels: levels, format: .json)
        #expect(handler.logLevel == .info)
        try levels.apply("tls=trace")
        #expect(handler.logLevel == .trace)
        handler.logLevel = .error
        #expect(handler.logLevel == .error)
    }

    @Test("Lines have the access log's shape")
    func lines() {
        let levels = LogLevels(.info)
        func line(_ format: LogFormat) -> String {
            let handler = MeshLogHandler(scope: "tls", levels: levels, format: format)
            let line = handler.encode(
                .warning, "peer said \"no\"", ["b": "2", "a": "x\ny"], at: Timestamp(microseconds: 1))
            return String(decoding: line.written, as: UTF8.self)
        }
        #expect(
            line(.json) == #"""
                {"level":"warn","time":"1970-01-01T00:00:00.000001Z","scope":"tls","message":"peer said \"no\"",\#
                "a":"x\ny","b":"2"}

                """#)
        #expect(
            line(.text) == "1970-01-01T00:00:00.000001Z\twarn\ttls\tpeer said \\\"no\\\"\ta=\"x\\ny\" b=\"2\"\n")
    }
}
