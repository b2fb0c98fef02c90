internal import HTTPTypes
internal import MeshModel
internal import MeshRuntime

/// Responses of our own.
extension HTTPProxyConnection {
    /// Answers a request that could not be understood, or did not come in time, and closes.
    func refuse(_ status: Int, _ reason: Reason, _ explanation: StaticString) {
        let exchange = HTTPExchange(
            HTTPRequestRecord(downstream, start: core.now), body: BodyDecoder(.none, limits: codecLimits))
        exchange.keepsDownstream = false
        headStart = nil
        phase = .exchange(exchange)
        respond(exchange, status, reason, explanation)
    }

    /// The request's body is malformed: the server must not take what it has for a whole request.
    func refuseBody(_ exchange: HTTPExchange, _ error: HTTPParseError) {
        if exchange.isResponseBegun { return tearDown(.badRequest, resetting: true) }
        exchange.keepsDownstream = false
        respond(exchange, error.requestStatus, .badRequest, error.explanation)
    }

    /// Nothing moved for as long as an exchange may be idle.
    func timedOut(_ exchange: HTTPExchange) {
        if exchange.isResponseBegun { return tearDown(.idleTimeout, resetting: true) }
        if exchange.isDialing { return respond(exchange, 504, .upstreamConnectTimeout) }
        let waitsForClient =
            !exchange.requestBody.isComplete && exchange.leg?.side.hasOutput == false
            && client.readyCount == 0 && !exchange.isRequestAbandoned
        if waitsForClient {
            exchange.keepsDownstream = false
            respond(exchange, 408, .requestTimeout, "the request took too long")
        } else {
            respond(exchange, 504, .idleTimeout)
        }
    }

    /// Answers an exchange whose response was not begun, and gives its upstream up.
    func respond(_ exchange: HTTPExchange, _ status: Int, _ reason: Reason, _ explanation: StaticString? = nil) {
        precondition(!exchange.isResponseBegun)
        giveUpUpstream(exchange)
        forgetHead(exchange)
        if !exchange.requestBody.isComplete {
            // A body that is all here is read and forgotten; otherwise nobody would read the rest.
            if client.decode(&exchange.requestBody) != .complete { exchange.keepsDownstream = false }
        }
        client.dropReady()
        if isDraining { exchange.keepsDownstream = false }

        exchange.record.status = status
        exchange.record.reason = reason
        exchange.record.flags.insert(.local)
        exchange.response = .local
        let text = explanation?.description ?? reason.rawValue
        exchange.record.bytesSent = exchange.isHEAD ? 0 : UInt64(text.utf8.count + 1)
        let fits = client.putHead { target in
            var writer = HeadWriter(target)
            writer.put(local: status, text: text, to: exchange)
            return writer.overflowed ? nil : writer.count
        }
        if !fits { tearDown(reason, resetting: true) }
    }

    private func giveUpUpstream(_ exchange: HTTPExchange) {
        if exchange.isDialing {
            exchange.isDialing = false
            upstreams.cancelDial(for: self)
        }
        guard let leg = exchange.leg else { return }
        exchange.leg = nil
        // A leg that was never written to for this request is as good as before.
        if case .awaitingUpstream = exchange.response { park(leg) } else { leg.side.reset() }
    }
}

extension HeadWriter {
    fileprivate mutating func put(local status: Int, text: String, to exchange: HTTPExchange) {
        put("HTTP/1.1 ")
        put(UInt64(status))
        put(" ")
        put(Self.phrase(of: status))
        put("\r\nserver: culvert\r\ncontent-type: text/plain\r\n")
        // RFC 9110 §15.5.6.
        if status == 405 { field("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS") }
        framing(.length(UInt64(text.utf8.count + 1)))
        if !exchange.keepsDownstream {
            field("connection", "close")
        } else if !exchange.clientIsCurrent {
            field("connection", "keep-alive")
        }
        put("\r\n")
        if !exchange.isHEAD {
            put(text)
            put("\n")
        }
    }

    private static func phrase(of status: Int) -> String {
        let known: [HTTPResponse.Status] = [
            .badRequest, .forbidden, .notFound, .methodNotAllowed, .requestTimeout, .uriTooLong,
            .requestHeaderFieldsTooLarge, .internalServerError, .badGateway, .serviceUnavailable, .gatewayTimeout,
            .httpVersionNotSupported,
        ]
        return known.first { $0.code == status }?.reasonPhrase ?? ""
    }
}
