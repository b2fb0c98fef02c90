/// Decodes the base64 (RFC 4648 §4) of an embedded object. The text is made by our own build: a wrong character is a
/// broken build and traps.
func decodeBase64(_ text: StaticString) -> [UInt8] {
    var table = [UInt8](repeating: 0xff, count: 256)
    for (value, letter) in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8.enumerated() {
        table[Int(letter)] = UInt8(value)
    }
    return text.withUTF8Buffer { letters in
        var bytes: [UInt8] = []
        bytes.reserveCapacity(letters.count / 4 * 3)
        var group: UInt32 = 0
        var bits = 0
        for letter in letters where letter != UInt8(ascii: "=") {
            let value = table[Int(letter)]
            precondition(value != 0xff, "an embedded object is not base64")
            group = group << 6 | UInt32(value)
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: group >> UInt32(bits)))
            }
        }
        return bytes
    }
}
