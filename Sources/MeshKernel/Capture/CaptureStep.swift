/// The steps of a capture, in order. A test makes things go wrong between any two of them: the daemon killed, the pod
/// gone, the address away.
enum CaptureStep: String, CaseIterable, Codable, Sendable {
    case named
    case scoped
    case settingsSaved
    case settingsChanged
    case routed
    case listenersSet
    case lookupAttached
    case endpointsSet
    case active
    case dnsRouted
    case dnsCaptured
}

/// Told after each step.
typealias CaptureWitness = @Sendable (CaptureStep) -> Void

/// The same for capture by rules (L2, L3). `hooked` comes at L2 alone.
enum RedirectStep: String, CaseIterable, Codable, Sendable {
    case hooked
    case recorded
    case claimed
    case settingsChanged
    case routed
    case ruled
}

typealias RedirectWitness = @Sendable (RedirectStep) -> Void
