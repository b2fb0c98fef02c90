internal import MeshModel
internal import MeshRuntime

/// From the first byte of a request to its head written to a backend.
extension HTTPProxyConnection {
    func stepHead() -> Bool {
        // The last response leaves first; its block is needed for this one's.
        if client.hasOutput { return false }
        if client.rawCount > 0, headStart == nil { headStart = core.now }
        switch client.withRaw({ parser.parse($0) }) {
        case .complete(let length):
            headStart = nil
            begin(length)
            return true
        case .failed(let error):
            refuse(error.requestStatus, error.reason, error.explanation)
            return true
        case .needMore:
            break
        }
        if client.hasEnded || client.readFailure != nil || (isDraining && client.rawCount == 0) {
            // Nobody waits for an answer to half a head.
            linger()
            return true
        }
        return client.fill()
    }

    private func begin(_ length: Int) {
        let exchange = HTTPExchange(
            HTTPRequestRecord(downstream, start: core.now),
            body: BodyDecoder(parser.head.requestFraming, limits: codecLimits))
        let snapshot = upstreams.snapshot()
        let facts = client.withRaw { bytes in
            describe(exchange, bytes)
            return HTTPRequestFacts(
                method: exchange.record.method, path: exchange.record.path, host: exchange.record.host,
                headers: snapshot.routes.isEmpty ? [] : headers(bytes))
        }
        exchange.headBytes = length
        phase = .exchange(exchange)
        let decision = snapshot.decideHTTP(
            service: downstream.service, port: downstream.port, request: facts, using: &core.random)
        switch decision {
        case .respond(let status, let reason, let route):
            exchange.record.route = route
            respond(exchange, status, reason)
        case .forward(let service, let port, let modifiers, let route):
            exchange.record.backend = service
            exchange.record.backendPort = port
            exchange.record.route = route
            exchange.backend = UpstreamLeg.Backend(service: service, port: port)
            exchange.rewriting.modifiers = modifiers
            exchange.rewriting.clientCertificate = clientCertificate
            exchange.rewriting.defaultHost = downstream.defaultHost
            exchange.rewriting.requestID = (core.random.next(), core.random.next())
            attach(exchange, generation: snapshot.generation, reusing: true)
        }
    }

    private func describe(_ exchange: HTTPExchange, _ bytes: Span<UInt8>) {
        let head = parser.head
        exchange.record.method = head.method.text(in: bytes)
        exchange.record.path = head.path.isEmpty ? "/" : head.path.text(in: bytes)
        exchange.record.host = head.authority.isEmpty ? downstream.defaultHost : head.authority.text(in: bytes)
        exchange.isHEAD = head.method.equals("HEAD", in: bytes)
        exchange.isRepeatable =
            exchange.requestBody.isComplete && Self.isIdempotent(head.method, bytes) && !head.wantsWebSocket
        exchange.clientIsCurrent = head.minorVersion == 1
        exchange.expectsContinue = head.expectsContinue && head.minorVersion == 1
        exchange.wantsWebSocket = head.wantsWebSocket
        exchange.keepsDownstream = head.isPersistent && !isDraining
    }

    private func headers(_ bytes: Span<UInt8>) -> [HTTPRequestFacts.Header] {
        var headers: [HTTPRequestFacts.Header] = []
        headers.reserveCapacity(parser.head.fields.count)
        for field in parser.head.fields {
            headers.append(
                HTTPRequestFacts.Header(name: field.name.lowercasedText(in: bytes), value: field.value.text(in: bytes)))
        }
        return headers
    }

    /// RFC 9110 §9.2.2.
    private static func isIdempotent(_ method: HTTPSlice, _ bytes: Span<UInt8>) -> Bool {
        for name in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] as [StaticString]
        where method.equals(name, in: bytes) {
            return true
        }
        return false
    }

    // MARK: Upstream

    /// Gets a stream to the exchange's backend: an idle one of this connection, or a new one.
    func attach(_ exchange: HTTPExchange, generation: UInt64, reusing: Bool) {
        guard let backend = exchange.backend else { preconditionFailure("no backend was chosen") }
        exchange.response = .awaitingUpstream
        if reusing, let leg = takeIdleLeg(backend, generation: generation) {
            exchange.record.flags.insert(.reusedUpstream)
            return send(exchange, over: leg)
        }
        exchange.isDialing = true
        upstreams.dial(service: backend.service, port: backend.port, for: self) { [weak self, weak exchange] result in
            guard let self, let exchange, exchange.isDialing else {
                if case .success(let stream) = result { stream.reset() }
                return
            }
            exchange.isDialing = false
            switch result {
            case .success(let stream):
                let side = StreamSide(stream, pool: core.buffers)
                stream.owner = self
                send(
                    exchange,
                    over: UpstreamLeg(side, backend: backend, generation: generation, limits: codecLimits))
            case .failure(let failure):
                respond(exchange, failure.status, failure.reason)
            }
            advance()
        }
    }

    private func send(_ exchange: HTTPExchange, over leg: UpstreamLeg) {
        exchange.leg = leg
        let hasRoom = leg.side.putHead { target in
            client.withRaw { exchange.rewriting.write(parser.head, $0, into: target) }
        }
        guard hasRoom else {
            leg.side.dropOutput()
            return respond(exchange, 431, .headersTooLarge)
        }
        exchange.response = .awaitingHead
        // The head is kept where it came in as long as it may be needed for a second try.
        if !(leg.isReused && exchange.isRepeatable) { forgetHead(exchange) }
    }

    func forgetHead(_ exchange: HTTPExchange) {
        if exchange.headBytes > 0 { client.dropRaw(exchange.headBytes) }
        exchange.headBytes = 0
    }

    /// Sends on what the client sends. False when nothing moved.
    func stepRequest(_ exchange: HTTPExchange, _ leg: UpstreamLeg) -> Bool {
        if exchange.isRequestSent || exchange.isRequestAbandoned { return false }
        if exchange.requestBody.isComplete, client.readyCount == 0 {
            // Nothing but the head, or the rest of what was passed on before.
            let flushed = leg.side.flush()
            if leg.side.writeFailure != nil {
                exchange.isRequestAbandoned = true
                return true
            }
            exchange.isRequestSent = !leg.side.hasOutput
            return flushed || exchange.isRequestSent
        }
        let (progressed, state) = pump(&exchange.requestBody, from: client, to: leg.side)
        switch state {
        case .open:
            // Without content to take the head along it leaves alone.
            return leg.side.flush() || progressed
        case .complete:
            exchange.isRequestSent = true
        case .malformed(let error):
            refuseBody(exchange, error)
        case .cut:
            refuseBody(exchange, .truncatedBody)
        case .sourceFailed:
            tearDown(.downstreamReset, resetting: true)
        case .sinkFailed:
            // The server may have answered before it stopped reading.
            exchange.isRequestAbandoned = true
            client.dropReady()
        }
        return true
    }
}

extension HTTPParseError {
    var reason: Reason {
        switch self {
        case .headTooLarge, .tooManyFields, .targetTooLong: .headersTooLarge
        default: .badRequest
        }
    }
}
