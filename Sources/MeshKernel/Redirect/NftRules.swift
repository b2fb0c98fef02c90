internal import CMeshABI
internal import MeshModel

/// The rules of one workload's namespace: one table of our own, replaced or removed in one transaction.
///
/// - Destinations are translated to the workload's **own address**, not to 127.0.0.1 as the `redirect` statement does:
///   the route to an own address exists for sockets bound to a device too, so those are captured like all others.
/// - Only what begins with a SYN is translated. A connection that was there before the rules is in `live4`, `live6` and
///   passes. Any other packet without an entry in the connection table belongs to a captured connection whose entry was
///   lost (table flushed, entry aged out): it would leave for the real destination in clear text, so it is reset.
/// - At L2 connect hooks lead connections to the outbound listener: what leaves without having met them is reset.
/// - What the operator keeps out of the mesh passes as it is, in the order of `CaptureScope`.
/// - A port without a listener answers with a reset: an absent proxy refuses at once.
/// - DNS by UDP, where it is captured, is translated likewise. See `questions`.
/// - Connections are counted in the nat chains, which see the first packet of each. Replacing the table would forget
///   the counters, so it takes them along.
struct NftRules: Hashable, Sendable {
    static let table = "culvert"
    static let remove = "add table inet \(table)\ndelete table inet \(table)\n"
    /// Fails when the table exists: the claim to a namespace.
    static let claim = "create table inet \(table)\n"

    var addresses: [IPAddress]
    var live: [LiveConnection]
    var scope = CaptureScope()
    /// Outbound is left to connect hooks (L2); else these rules translate it (L3).
    var hasHooks = false
    /// Questions to DNS servers by UDP come to the proxy.
    var capturesDNS = false

    /// What rules without hooks count.
    static let counted: [CaptureEvent] = [
        .outboundSteered, .exemptProxy, .exemptLocal, .exemptExcluded, .refusedNoAddress, .refusedLinkLocal,
        .inboundSteered, .tunnelSteered, .excludedPassed, .connectionForgotten,
    ]
    /// What they count beside hooks, which count what goes out.
    static let countedWithHooks: [CaptureEvent] = [
        .refusedNoListener, .refusedLinkLocal, .inboundSteered, .tunnelSteered, .excludedPassed, .connectionForgotten,
    ]
    /// What they count beside that where they capture DNS.
    static let countedOfDNS: [CaptureEvent] = [.dnsCaptured, .dnsPassed]

    /// The zone of the connection table that questions are translated in.
    private static let zone = CULVERT_PORT_DNS

    /// Replaces what stands. The first address of each family is where captured connections go.
    /// - Parameter counts: where the counters go on, by name.
    func script(from counts: [String: UInt64] = [:]) -> String {
        """
        \(Self.remove)table inet \(Self.table) {
        \(sets)
        \(counters(from: counts))
            chain guard {
                type filter hook output priority -110; policy accept;
                meta l4proto != tcp accept
                oifname "lo" accept
                meta mark \(CULVERT_MARK_PROXY) accept
        \(passLive)
        \(scope.outboundExclusions("accept"))
                ct state invalid drop
                ct state new tcp flags & (fin | syn | rst | ack) != syn \(Self.count(.connectionForgotten)) \(Self.reset)
                ct state new ip6 daddr fe80::/10 \(Self.count(.refusedLinkLocal)) \(Self.reset)
        \(refusals)
            }
        \(outbound)
        \(questions)
            chain inbound {
                type nat hook prerouting priority -100; policy accept;
                meta l4proto != tcp accept
                iifname "lo" accept
                fib daddr type != local accept
                tcp flags & (fin | syn | rst | ack) != syn accept
                tcp dport \(CULVERT_PORT_TUNNEL) \(Self.count(.tunnelSteered)) accept
        \(scope.inboundExclusions("\(Self.count(.excludedPassed)) accept"))
                meta l4proto tcp \(Self.count(.inboundSteered)) dnat to :\(CULVERT_PORT_INBOUND)
            }
        }

        """
    }

    private static let reset = "reject with tcp reset"

    private static func count(_ event: CaptureEvent) -> String { "counter name \(event.word)" }

    private func counters(from counts: [String: UInt64]) -> String {
        ((hasHooks ? Self.countedWithHooks : Self.counted) + (capturesDNS ? Self.countedOfDNS : [])).map {
            "    counter \($0.word) { packets \(counts[$0.word] ?? 0) bytes 0 }"
        }.joined(separator: "\n")
    }

    private var families: [(ipv4: Bool, own: IPAddress?)] {
        [true, false].map { ipv4 in (ipv4, addresses.first { $0.isIPv4 == ipv4 }) }
    }

    private var outbound: String {
        guard !hasHooks else { return "" }
        return """
                chain outbound {
                    type nat hook output priority -100; policy accept;
                    meta l4proto != tcp accept
                    tcp flags & (fin | syn | rst | ack) != syn accept
                    meta mark \(CULVERT_MARK_PROXY) \(Self.count(.exemptProxy)) accept
                    oifname "lo" meta mark \(CULVERT_MARK_UPSTREAM) \(Self.count(.exemptProxy)) accept
                    oifname "lo" \(Self.count(.exemptLocal)) accept
            \(scope.outboundExclusions("\(Self.count(.exemptExcluded)) accept"))
            \(translations)
                }
            """
    }

    private var translations: String {
        families.compactMap { ipv4, own in
            own.map {
                "        \(Self.family(ipv4)) meta l4proto tcp \(Self.count(.outboundSteered)) "
                    + Self.translation($0, CULVERT_PORT_OUTBOUND)
            }
        }.joined(separator: "\n")
    }

    /// Questions have a zone of the connection table to themselves in one direction, from the application: entries of a
    /// socket from before do not keep its questions from being translated, and translated ones do not keep them from
    /// going where they are meant to afterwards. Answers, and the kernel's word that nobody listens, need no zone.
    ///
    /// As at other levels, a server at the workload's own address is one like any other, and exclusions are of TCP. The
    /// client's port may be 53 as well: what the proxy answers is no question.
    private var questions: String {
        guard capturesDNS else { return "" }
        let decisions = families.map { ipv4, own in
            "        \(Self.family(ipv4)) "
                + (own == nil
                    ? Self.count(.dnsPassed) : "\(Self.count(.dnsCaptured)) ct original zone set \(Self.zone)")
        }
        let translations = families.compactMap { ipv4, own in
            own.map { "        \(Self.family(ipv4)) meta l4proto udp \(Self.translation($0, CULVERT_PORT_DNS))" }
        }
        return """
                chain questions {
                    type filter hook output priority -300; policy accept;
                    meta l4proto != udp accept
                    udp dport != \(CULVERT_PORT_DOMAIN) accept
                    udp sport \(CULVERT_PORT_DNS) accept
                    meta mark \(CULVERT_MARK_PROXY) accept
                    ip daddr { 127.0.0.0/8, 224.0.0.0/4 } accept
                    ip6 daddr { ::1, fe80::/10, ff00::/8 } accept
            \(decisions.joined(separator: "\n"))
                }
                chain servers {
                    type nat hook output priority -100; policy accept;
                    meta l4proto != udp accept
                    ct original zone != \(Self.zone) accept
            \(translations.joined(separator: "\n"))
                }
            """
    }

    private static func family(_ ipv4: Bool) -> String { "meta nfproto \(ipv4 ? "ipv4" : "ipv6")" }

    private static func translation(_ own: IPAddress, _ port: UInt32) -> String {
        "dnat \(own.isIPv4 ? "ip to \(own)" : "ip6 to [\(own)]"):\(port)"
    }

    /// A family without an own address cannot be captured, so it does not get out.
    private var refusals: String {
        let hookless = "        ct state new meta l4proto tcp \(Self.count(.refusedNoListener)) \(Self.reset)"
        if hasHooks { return hookless }
        return families.filter { $0.own == nil }.map { ipv4, _ in
            "        ct state new \(Self.family(ipv4)) meta l4proto tcp "
                + "\(Self.count(.refusedNoAddress)) \(Self.reset)"
        }.joined(separator: "\n")
    }

    private var passLive: String {
        """
                ip saddr . tcp sport . ip daddr . tcp dport @live4 accept
                ip6 saddr . tcp sport . ip6 daddr . tcp dport @live6 accept
        """
    }

    private var sets: String {
        [true, false].map { ipv4 in
            let type = ipv4 ? "ipv4_addr" : "ipv6_addr"
            let elements = live.filter { $0.local.isIPv4 == ipv4 }.map {
                "\($0.local) . \($0.localPort) . \($0.remote) . \($0.remotePort)"
            }
            return """
                    set live\(ipv4 ? 4 : 6) {
                        type \(type) . inet_service . \(type) . inet_service
                \(elements.isEmpty ? "" : "        elements = { \(elements.joined(separator: ", ")) }")
                    }
                """
        }.joined(separator: "\n")
    }
}
