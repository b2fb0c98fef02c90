import MeshModel

@testable import MeshWire

/// Messages made byte by byte, independent of the writer under test.
enum DNSBytes {
    struct Record {
        var name: [UInt8] = [0xc0, 12]
        var type: DNSType
        var recordClass: UInt16 = 1
        var ttl: UInt32
        var data: [UInt8]
    }

    static func name(_ text: String) -> [UInt8] {
        text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
    }

    static func half(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }

    static func message(
        id: UInt16 = 0x1234, flags: UInt16 = 0x0100, name text: String, type: DNSType = .a, recordClass: UInt16 = 1,
        answers: [Record] = [], authority: [Record] = [], additional: [Record] = []
    ) -> [UInt8] {
        var bytes = half(id) + half(flags) + half(1)
        for list in [answers, authority, additional] { bytes += half(UInt16(list.count)) }
        bytes += name(text) + half(type.rawValue) + half(recordClass)
        for record in answers + authority + additional {
            bytes += record.name + half(record.type.rawValue) + half(record.recordClass)
            bytes += half(UInt16(record.ttl >> 16)) + half(UInt16(record.ttl & 0xffff))
            bytes += half(UInt16(record.data.count)) + record.data
        }
        return bytes
    }

    static func address(_ last: UInt8, ttl: UInt32) -> Record {
        Record(type: .a, ttl: ttl, data: [192, 0, 2, last])
    }

    static func soa(ttl: UInt32, minimum: UInt32) -> Record {
        let numbers: [UInt32] = [1, 2, 3, 4, minimum]
        let tail = numbers.flatMap { half(UInt16($0 >> 16)) + half(UInt16($0 & 0xffff)) }
        return Record(type: .soa, ttl: ttl, data: [0xc0, 12] + name("admin.example") + tail)
    }

    static func opt(_ payload: UInt16, ttl: UInt32 = 0, data: [UInt8] = []) -> Record {
        Record(name: [0], type: .opt, recordClass: payload, ttl: ttl, data: data)
    }
}

func parseDNS(_ bytes: [UInt8]) throws(DNSParseError) -> DNSMessage {
    let result: Result<DNSMessage, DNSParseError> = bytes.withUnsafeBytes { raw in
        do throws(DNSParseError) { return .success(try DNSMessage(parsing: raw)) } catch { return .failure(error) }
    }
    return try result.get()
}

func storeDNS(_ bytes: [UInt8]) throws(DNSParseError) -> DNSStoredResponse {
    let result: Result<DNSStoredResponse, DNSParseError> = bytes.withUnsafeBytes { raw in
        do throws(DNSParseError) { return .success(try DNSStoredResponse(raw)) } catch { return .failure(error) }
    }
    return try result.get()
}

extension DNSStoredResponse {
    /// The answer to `question`, as bytes.
    func answer(
        _ question: [UInt8], age: Age = .seconds(0), limit: Int = 512, nameExists: Bool = false
    ) throws -> [UInt8] {
        let message = try parseDNS(question)
        var output: [UInt8] = [1, 2, 3]
        question.withUnsafeBytes {
            answer(message, $0, age: age, limit: limit, nameExists: nameExists, into: &output)
        }
        return output
    }
}

/// Type, TTL and data of every record.
func dnsRecords(_ bytes: [UInt8]) throws -> [(type: DNSType, ttl: UInt32, data: [UInt8])] {
    let message = try parseDNS(bytes)
    var records: [(type: DNSType, ttl: UInt32, data: [UInt8])] = []
    bytes.withUnsafeBytes { raw in
        message.forEachRecord(in: raw) { record in
            records.append((record.type, record.ttl(in: raw), Array(raw[record.data])))
        }
    }
    return records
}
