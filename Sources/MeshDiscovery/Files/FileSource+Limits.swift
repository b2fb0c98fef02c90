internal import MeshModel

extension FileSource {
    /// How long a daemon that was told to stop waits for its connections, as the configuration says now.
    public var drainLimit: Duration { .nanoseconds(state.snapshot.settings.limits.drainNanoseconds) }
}
