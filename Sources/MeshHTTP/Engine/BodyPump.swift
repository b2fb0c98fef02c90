/// How far one direction of an exchange is.
enum PumpState: Equatable {
    case open
    /// The body is over and handed to the sink's stream.
    case complete
    case malformed(HTTPParseError)
    /// The source finished its direction in the middle of the body.
    case cut
    case sourceFailed
    case sinkFailed
}

/// Moves a body from one side to the other: judge what is there, pass it on, read more. One step at a time; the caller
/// repeats while there was progress, so neither direction starves the other.
func pump(_ decoder: inout BodyDecoder, from source: StreamSide, to sink: StreamSide) -> (Bool, PumpState) {
    var progressed = false
    if !decoder.isComplete {
        let before = source.rawCount
        if case .failed(let error) = source.decode(&decoder) { return (true, .malformed(error)) }
        if source.rawCount != before { progressed = true }
    }
    if source.passReady(to: sink) { progressed = true }
    if sink.writeFailure != nil { return (true, .sinkFailed) }
    if !decoder.isComplete {
        if source.hasEnded {
            // Half a line may be left undecoded: that is a cut body as well.
            if !decoder.endOfStream() { return (progressed, source.readyCount > 0 ? .open : .cut) }
            progressed = true
        } else {
            if source.fill() { progressed = true }
            if source.readFailure != nil { return (true, .sourceFailed) }
        }
    }
    let isDone = decoder.isComplete && source.readyCount == 0 && !sink.hasOutput
    return (progressed, isDone ? .complete : .open)
}
