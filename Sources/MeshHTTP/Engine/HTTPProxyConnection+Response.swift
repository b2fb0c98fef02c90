internal import MeshModel
internal import MeshRuntime

/// From the first byte of a response to the exchange's end.
extension HTTPProxyConnection {
    func step(_ exchange: HTTPExchange) -> Bool {
        guard let leg = exchange.leg else {
            guard case .local = exchange.response, !client.hasOutput else { return false }
            finish(exchange)
            return true
        }
        if case .tunnel = exchange.response { return stepTunnel(exchange, leg) }
        let progressed = stepRequest(exchange, leg)
        // The request may have failed, and taken the leg or everything along.
        guard exchange.leg === leg else { return true }
        return stepResponse(exchange, leg) || progressed
    }

    private func stepResponse(_ exchange: HTTPExchange, _ leg: UpstreamLeg) -> Bool {
        guard case .body(var decoder) = exchange.response else { return stepResponseHead(exchange, leg) }
        let (progressed, state) = pump(&decoder, from: leg.side, to: client)
        exchange.response = .body(decoder)
        switch state {
        case .open:
            // A head without content yet leaves alone.
            return client.flush() || progressed
        case .complete: finish(exchange)
        case .malformed: tearDown(.protocolError, resetting: true)
        case .cut, .sourceFailed: tearDown(.upstreamReset, resetting: true)
        case .sinkFailed: tearDown(.downstreamReset, resetting: true)
        }
        return true
    }

    private func stepResponseHead(_ exchange: HTTPExchange, _ leg: UpstreamLeg) -> Bool {
        // An interim response leaves before the next head is written to its block.
        if client.hasOutput { return false }
        if leg.side.rawCount > 0, !leg.hasAnswered {
            leg.hasAnswered = true
            forgetHead(exchange)
        }
        switch leg.side.withRaw({ leg.parser.parse($0) }) {
        case .complete(let length):
            take(exchange, leg, length)
            return true
        case .failed:
            respond(exchange, 502, .protocolError)
            return true
        case .needMore:
            break
        }
        if leg.side.hasEnded || leg.side.readFailure != nil {
            upstreamBroke(exchange, leg)
            return true
        }
        return leg.side.fill()
    }

    /// A complete response head is there.
    private func take(_ exchange: HTTPExchange, _ leg: UpstreamLeg, _ length: Int) {
        let head = leg.parser.head
        if head.status == 101 { return switchProtocols(exchange, leg, length) }
        if head.status < 200 { return passInterim(exchange, leg, length) }

        let framing = head.responseFraming(toHEAD: exchange.isHEAD)
        exchange.keepsUpstream = head.isPersistent && framing != .untilClose
        if framing == .untilClose || (framing == .chunked && !exchange.clientIsCurrent) || isDraining {
            exchange.keepsDownstream = false
        }
        // The server does not want the rest of the request. The client may send it or not (RFC 9110 §10.1.1), so what
        // follows on this connection cannot be told apart.
        if !exchange.isRequestSent, exchange.expectsContinue || exchange.isRequestAbandoned || head.status >= 300 {
            exchange.keepsDownstream = false
        }
        let rewriting = ResponseRewriting(
            framing: framing, clientIsCurrent: exchange.clientIsCurrent, toHEAD: exchange.isHEAD,
            isPersistent: exchange.keepsDownstream)
        guard putHead(leg, rewriting) else { return respond(exchange, 502, .headersTooLarge) }
        leg.side.dropRaw(length)
        exchange.record.status = head.status
        exchange.response = .body(
            BodyDecoder(framing, keepsFraming: exchange.clientIsCurrent, limits: codecLimits))
    }

    private func passInterim(_ exchange: HTTPExchange, _ leg: UpstreamLeg, _ length: Int) {
        exchange.interimResponses += 1
        guard exchange.interimResponses <= Self.interimResponseLimit else {
            return respond(exchange, 502, .protocolError)
        }
        // HTTP/1.0 knows none (RFC 9110 §15.2).
        if exchange.clientIsCurrent, !putHead(leg, ResponseRewriting(framing: .none)) {
            return respond(exchange, 502, .headersTooLarge)
        }
        if leg.parser.head.status == 100 { exchange.expectsContinue = false }
        leg.side.dropRaw(length)
        leg.parser.reset()
    }

    private func putHead(_ leg: UpstreamLeg, _ rewriting: ResponseRewriting) -> Bool {
        client.putHead { target in
            leg.side.withRaw { rewriting.write(leg.parser.head, $0, into: target) }
        }
    }

    /// The server closed before its response was there.
    private func upstreamBroke(_ exchange: HTTPExchange, _ leg: UpstreamLeg) {
        let isStale = leg.isReused && !leg.hasAnswered
        if isStale, exchange.isRepeatable, !exchange.record.flags.contains(.retried) {
            exchange.record.flags.insert(.retried)
            exchange.leg = nil
            leg.side.reset()
            exchange.isRequestSent = false
            exchange.isRequestAbandoned = false
            return attach(exchange, generation: upstreams.snapshot().generation, reusing: false)
        }
        switch leg.side.readFailure {
        case .refused: respond(exchange, 503, .upstreamRefused)
        case .unreachable: respond(exchange, 503, .upstreamConnectFailed)
        case .timedOut: respond(exchange, 504, .upstreamConnectTimeout)
        default: respond(exchange, 502, .upstreamReset)
        }
    }

    /// The response is handed to the client's stream as a whole.
    private func finish(_ exchange: HTTPExchange) {
        forgetHead(exchange)
        let isRequestRead = exchange.requestBody.isComplete && client.readyCount == 0
        if let leg = exchange.leg {
            exchange.leg = nil
            if !exchange.isRequestSent {
                exchange.record.flags.insert(.earlyResponse)
                leg.side.reset()
            } else if exchange.keepsUpstream {
                park(leg)
            } else {
                leg.side.close()
            }
        }
        report(exchange, .none)
        parser.reset()
        headStart = nil
        if exchange.keepsDownstream, isRequestRead { phase = .head } else { linger() }
    }

    // MARK: Tunnels

    private func switchProtocols(_ exchange: HTTPExchange, _ leg: UpstreamLeg, _ length: Int) {
        guard exchange.wantsWebSocket, leg.parser.head.acceptsWebSocket, exchange.isRequestSent else {
            return respond(exchange, 502, .protocolError)
        }
        guard putHead(leg, ResponseRewriting(framing: .none, acceptsUpgrade: true)) else {
            return respond(exchange, 502, .headersTooLarge)
        }
        leg.side.dropRaw(length)
        exchange.record.status = 101
        exchange.record.flags.insert(.upgraded)
        exchange.requestBody = BodyDecoder(.untilClose, limits: codecLimits)
        exchange.isRequestSent = false
        exchange.response = .tunnel(BodyDecoder(.untilClose, limits: codecLimits))
    }

    private func stepTunnel(_ exchange: HTTPExchange, _ leg: UpstreamLeg) -> Bool {
        guard case .tunnel(var decoder) = exchange.response else { return false }
        var progressed = false
        if !exchange.isRequestSent {
            let (moved, state) = pump(&exchange.requestBody, from: client, to: leg.side)
            if moved { progressed = true }
            if state == .complete {
                exchange.isRequestSent = true
                leg.side.finishWriting()
            } else if state != .open {
                tearDown(state == .sinkFailed ? .upstreamReset : .downstreamReset, resetting: true)
                return true
            }
        }
        if !exchange.isResponseSent {
            let (moved, state) = pump(&decoder, from: leg.side, to: client)
            exchange.response = .tunnel(decoder)
            if moved { progressed = true }
            if state == .complete {
                exchange.isResponseSent = true
                client.finishWriting()
            } else if state != .open {
                tearDown(state == .sinkFailed ? .downstreamReset : .upstreamReset, resetting: true)
                return true
            }
        }
        guard exchange.isRequestSent, exchange.isResponseSent else { return progressed }
        exchange.leg = nil
        leg.side.close()
        report(exchange, .none)
        phase = .lingering
        tearDown(.none, resetting: false)
        return true
    }
}
