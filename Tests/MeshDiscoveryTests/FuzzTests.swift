import Foundation
import MeshDiscovery
import Testing

/// A small generator with a seed, so that a failure can be replayed.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

@Suite struct FuzzTests {
    private static let tokens = [
        "---\n", "- ", ": ", "? ", "[", "]", "{", "}", "*a", "&a ", "*", "&", "!!int ", "!x ", "|\n", ">\n", "\"", "'",
        "#", "<<: ", "\t", "\n", "\r\n", "%YAML 1.1\n", "...\n", "\0", "\u{FEFF}", "\u{E000}", "é", "null", "true",
        "1e9",
        "-1", "99999999999999999999", "0x10", "spec:", "metadata:", "kind: Service", "10.0.0.0/8", "::1", ",", "@", "`",
    ]

    /// Whatever is done to a valid file, reading it ends, and says what is wrong inside the file or accepts it.
    /// `CULVERT_FUZZ_SEED` replays, `CULVERT_FUZZ_ROUNDS` runs longer.
    @Test(.timeLimit(.minutes(5))) func mutatedFilesNeverCrashTheReader() {
        let environment = ProcessInfo.processInfo.environment
        let seed = environment["CULVERT_FUZZ_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0...UInt64.max)
        let rounds = environment["CULVERT_FUZZ_ROUNDS"].flatMap(Int.init) ?? 60
        print("fuzz seed \(seed)")
        var chance = SplitMix(seed: seed)
        let original = Array(Samples.everything.utf8)
        for round in 0..<rounds {
            var bytes = original
            for _ in 0..<Int.random(in: 1...6, using: &chance) { Self.mutate(&bytes, using: &chance) }
            let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
            let reading = ConfigurationReading(parsing: [ConfigurationFile(name: "f", bytes: bytes)], path: "f")
            for finding in reading.errors + reading.warnings {
                #expect(finding.line <= lines + 1, "seed \(seed) round \(round): \(finding)")
                #expect(!finding.message.isEmpty, "seed \(seed) round \(round)")
            }
            if reading.isValid { _ = reading.objects.makeSnapshot(generation: 1) }
        }
    }

    private static func mutate(_ bytes: inout [UInt8], using chance: inout SplitMix) {
        guard !bytes.isEmpty else { return }
        let position = Int.random(in: 0..<bytes.count, using: &chance)
        switch Int.random(in: 0..<6, using: &chance) {
        case 0: bytes[position] = UInt8.random(in: 0...255, using: &chance)
        case 1: bytes.removeSubrange(position..<min(bytes.count, position + Int.random(in: 1...40, using: &chance)))
        case 2: bytes.insert(contentsOf: Array(tokens.randomElement(using: &chance)!.utf8), at: position)
        case 3: bytes.removeSubrange(position...)
        case 4:
            let end = min(bytes.count, position + Int.random(in: 1...200, using: &chance))
            bytes.insert(contentsOf: bytes[position..<end], at: Int.random(in: 0...bytes.count, using: &chance))
        default:
            // A whole line swapped with another: well-formed far more often than noise.
            var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            let left = Int.random(in: 0..<lines.count, using: &chance)
            lines.swapAt(left, Int.random(in: 0..<lines.count, using: &chance))
            bytes = Array(lines.joined(separator: [UInt8(ascii: "\n")]))
        }
    }
}
