import Foundation

/// What a program left behind.
struct Outcome: Sendable {
    let status: Int32
    let output: String
    let errors: String
}

struct ShellFailure: Error, CustomStringConvertible {
    let description: String
}

/// Runs a program to its end.
func run(_ arguments: [String]) throws -> Outcome {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = arguments
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let complaint = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Outcome(
        status: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
        errors: String(decoding: complaint, as: UTF8.self))
}

/// Runs a line of words and fails when it fails.
@discardableResult
func shell(_ line: String) throws -> String {
    let outcome = try run(line.split(separator: " ").map(String.init))
    guard outcome.status == 0 else {
        throw ShellFailure(description: "\(line): status \(outcome.status): \(outcome.errors)")
    }
    return outcome.output
}
