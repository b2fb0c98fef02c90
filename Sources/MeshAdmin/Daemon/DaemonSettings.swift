/// A daemon's settings: a flag, else its environment twin (`--node-name` is `CULVERT_NODE_NAME`).
public struct DaemonSettings: Sendable {
    private let environment: [String: String]

    public init(environment: [String: String]) {
        self.environment = environment
    }

    /// What was given is not usable: names the flag, the value and what is expected.
    public struct Refusal: Error, CustomStringConvertible {
        public let description: String
    }

    static func variable(_ name: String) -> String {
        "CULVERT_" + String(name.uppercased().map { $0 == "-" ? "_" : $0 })
    }

    public func text(_ flag: String?, _ name: String) -> String? {
        flag ?? environment[Self.variable(name)]
    }

    public func required(_ flag: String?, _ name: String) throws(Refusal) -> String {
        guard let value = text(flag, name), !value.isEmpty else {
            throw Refusal(description: "--\(name) is missing: give the flag or set \(Self.variable(name))")
        }
        return value
    }

    public func number(_ flag: Int?, _ name: String, in range: ClosedRange<Int>) throws(Refusal) -> Int? {
        guard let value = text(flag.map(String.init), name) else { return nil }
        guard let number = Int(value), range.contains(number) else {
            throw Refusal(
                description:
                    "--\(name) is '\(value)'; it must be a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A flag without a value; its twin says true or false (1 or 0).
    public func flag(_ flag: Bool, _ name: String) throws(Refusal) -> Bool {
        guard !flag, let value = environment[Self.variable(name)] else { return flag }
        switch value {
        case "1", "true": return true
        case "0", "false", "": return false
        default: throw Refusal(description: "\(Self.variable(name)) is '\(value)'; it must be true or false")
        }
    }

    public func choice<Choice: RawRepresentable & CaseIterable>(
        _ flag: String?, _ name: String, _ type: Choice.Type
    ) throws(Refusal) -> Choice? where Choice.RawValue == String {
        guard let value = text(flag, name) else { return nil }
        guard let choice = Choice(rawValue: value) else {
            let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw Refusal(description: "--\(name) is '\(value)'; it must be one of: \(known)")
        }
        return choice
    }
}
