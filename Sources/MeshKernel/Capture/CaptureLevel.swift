/// How traffic is captured: the rungs of the ladder, from everything to the least that works. Which one a
/// kernel passes is probed; the versions are only where to expect it.
public enum CaptureLevel: String, Codable, Sendable, CaseIterable, Comparable,
    CustomStringConvertible
{
    /// Marks at connect, sk_lookup steers by address and arrival device (5.17 on).
    case l0 = "L0"
    /// As L0, but `pass_tuple` tells the proxy's own leg from what arrives (5.9 to 5.16).
    case l1 = "L1"
    /// The connect hooks rewrite the destination; nft redirects what arrives (5.8, or no policy routing).
    case l2 = "L2"
    /// nft redirects both ways; no program of ours runs.
    case l3 = "L3"

    /// As the numbers read: `l0 < l3`, so `reached <= required` means good enough.
    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

    /// `L0` to `L3`.
    public var description: String { rawValue }
}
