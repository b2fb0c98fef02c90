/// Waits for a condition by looking again and again, at first every millisecond, later every 50.
/// - Parameter what: what is awaited, for the error.
/// - Throws: `LabError.timedOut` at the deadline, with what the last look threw.
public func until(
    _ what: String, within limit: Duration = .seconds(10), isolation: isolated (any Actor)? = #isolation,
    _ condition: () async throws -> Bool
) async throws {
    try await eventually(what, within: limit, isolation: isolation) { try await condition() ? () : nil }
}

/// Waits for a value: `look` is asked again until it gives one. What it throws counts as "not yet", except a
/// cancellation and a lab torn down.
public func eventually<Value>(
    _ what: String, within limit: Duration = .seconds(10), isolation: isolated (any Actor)? = #isolation,
    _ look: () async throws -> Value?
) async throws -> Value {
    let clock = ContinuousClock()
    let deadline = clock.now + limit
    var pause = Duration.milliseconds(1)
    while true {
        var last: (any Error)?
        do {
            if let value = try await look() { return value }
        } catch let error as CancellationError {
            throw error
        } catch let error as LabError where error.kind == .tornDown {
            throw error
        } catch {
            last = error
        }
        if clock.now >= deadline {
            throw LabError(.timedOut, "\(what): not within \(limit)" + (last.map { " (\($0))" } ?? ""))
        }
        try await Task.sleep(for: pause, clock: clock)
        pause = min(pause * 2, .milliseconds(50))
    }
}
