import MeshModel

@testable import MeshKernel

extension BPFMap {
    /// Adds entries that stand for nothing until there are `limit`, or no more fit.
    /// - Returns: how many fitted.
    @discardableResult
    func fill(upTo limit: Int = .max, _ key: (Int) -> Key) -> Int {
        let zeros = [UInt8](repeating: 0, count: MemoryLayout<Value>.size)
        let nothing = zeros.withUnsafeBytes { $0.loadUnaligned(as: Value.self) }
        var count = 0
        while count < limit, update(nothing, for: key(count)) == 0 { count += 1 }
        return count
    }
}

/// Addresses that nobody has.
enum Nobody {
    static func ip(_ number: Int) -> IPAddress { IPAddress(high: 0x2001_0db8_0000_00ff, low: UInt64(number)) }

    static func address(_ number: Int) -> SocketAddress { SocketAddress(ip: ip(number), port: 1) }
}
