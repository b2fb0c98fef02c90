public import MeshModel
import Synchronization

/// A configuration that is being served.
public struct ConfigurationState: Sendable {
    /// From 1, one more for every accepted change.
    public let generation: UInt64
    public let objects: ObjectSet
    public let warnings: [ConfigurationError]
    public let snapshot: MeshSnapshot
    /// Relative paths inside the configuration (the CA's files) start here.
    public let folder: String
}

/// Configuration from a file or a directory of YAML, followed while it changes.
///
/// What is wrong never replaces what works: a reading with any error is refused as a whole, reported with all its
/// errors, and the last good state keeps serving.
public final class FileSource: Sendable {
    /// News from the source. Each one says everything, so only the newest matters.
    public struct Update: Sendable {
        /// The state to serve.
        public let state: ConfigurationState
        /// Why the newest reading was refused; empty when `state` is what the files say.
        public let failure: ConfigurationFailure?
    }

    private struct Mutable {
        var state: ConfigurationState
        var failure: ConfigurationFailure?
        var watcher: FileWatcher?
        var listeners: [UInt64: AsyncStream<Update>.Continuation] = [:]
        var nextListener: UInt64 = 0
    }

    /// The live objects, one collection for each kind; they change before the update is sent.
    public let collections = ConfigurationCollections()
    private let path: String
    private let quiet: Duration
    private let mutable: Mutex<Mutable>
    /// One reading at a time, so that states come in the order they were read.
    private let reading = Mutex(())

    /// Reads the configuration for the first time.
    ///
    /// - Parameters:
    ///   - path: a file, or a directory whose `*.yaml` and `*.yml` are read.
    ///   - quiet: how long the files must be at rest before they are read again.
    /// - Throws: when it cannot be read or has errors, as there is nothing to serve yet.
    public init(path: String, quiet: Duration = .milliseconds(50)) throws(ConfigurationFailure) {
        self.path = path
        self.quiet = quiet
        let reading = try ConfigurationReading(path: path)
        guard reading.isValid else { throw .invalid(reading.errors) }
        let state = ConfigurationState(reading, generation: 1, path: path)
        mutable = Mutex(Mutable(state: state))
        collections.replaceAll(with: state.objects)
    }

    deinit {
        mutable.withLock { mutable in
            mutable.watcher?.stop()
            for listener in mutable.listeners.values { listener.finish() }
        }
    }

    /// The last good state.
    public var state: ConfigurationState { mutable.withLock { $0.state } }

    /// Why the newest reading was refused; nil when `state` is what the files say.
    public var failure: ConfigurationFailure? { mutable.withLock { $0.failure } }

    /// Follows the files from the first call on. The stream begins with the present state, then has every change that
    /// matters (a slow reader sees the newest only), and ends with its task or with the source.
    public func updates() throws(ConfigurationFailure) -> AsyncStream<Update> {
        let (stream, continuation) = AsyncStream.makeStream(of: Update.self, bufferingPolicy: .bufferingNewest(1))
        let key = mutable.withLock { mutable in
            mutable.nextListener += 1
            mutable.listeners[mutable.nextListener] = continuation
            continuation.yield(Update(state: mutable.state, failure: mutable.failure))
            return mutable.nextListener
        }
        continuation.onTermination = { [weak self] _ in
            self?.mutable.withLock { _ = $0.listeners.removeValue(forKey: key) }
        }
        try startWatching()
        return stream
    }

    /// Reads again now, without waiting for the files to change.
    public func reload() {
        reading.withLock { _ in
            do throws(ConfigurationFailure) {
                let reading = try ConfigurationReading(path: path)
                if reading.isValid { accept(reading) } else { refuse(.invalid(reading.errors)) }
            } catch {
                refuse(error)
            }
        }
    }

    private func startWatching() throws(ConfigurationFailure) {
        if mutable.withLock({ $0.watcher != nil }) { return }
        let watcher = try FileWatcher(path: path, quiet: quiet) { [weak self] in self?.reload() }
        try watcher.start()
        let isSecond = mutable.withLock { mutable in
            if mutable.watcher != nil { return true }
            mutable.watcher = watcher
            return false
        }
        if isSecond { watcher.stop() }
    }

    /// A reading that says the same is no news: touching a file disturbs nobody.
    private func accept(_ reading: ConfigurationReading) {
        let (current, failure) = mutable.withLock { ($0.state, $0.failure) }
        let isSame = reading.objects == current.objects
        if isSame, failure == nil, reading.warnings == current.warnings { return }
        let generation = isSame ? current.generation : current.generation + 1
        let snapshot = isSame ? current.snapshot : nil
        let next = ConfigurationState(reading, generation: generation, path: path, snapshot: snapshot)
        collections.replaceAll(with: next.objects)
        publish { mutable in
            mutable.state = next
            mutable.failure = nil
        }
    }

    private func refuse(_ failure: ConfigurationFailure) {
        if self.failure == failure { return }
        publish { $0.failure = failure }
    }

    private func publish(_ change: (inout Mutable) -> Void) {
        mutable.withLock { mutable in
            change(&mutable)
            let update = Update(state: mutable.state, failure: mutable.failure)
            for listener in mutable.listeners.values { listener.yield(update) }
        }
    }
}

extension ConfigurationState {
    init(_ reading: ConfigurationReading, generation: UInt64, path: String, snapshot: MeshSnapshot? = nil) {
        self.generation = generation
        objects = reading.objects
        warnings = reading.warnings
        self.snapshot = snapshot ?? reading.objects.makeSnapshot(generation: generation)
        folder = ConfigurationPath(path: path).folder
    }
}
