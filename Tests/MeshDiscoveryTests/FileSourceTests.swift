import Foundation
import MeshDiscovery
import MeshModel
import Testing

/// Every wait in here is for news from the source; the time limit only ends a test that would wait for ever.
@Suite(.timeLimit(.minutes(1))) struct FileSourceTests {
    private func names(_ update: FileSource.Update) -> [String] {
        update.state.objects.workloads.map(\.name.name)
    }

    /// The first update that satisfies `condition`.
    private func wait(
        _ updates: inout AsyncStream<FileSource.Update>.Iterator, until condition: (FileSource.Update) -> Bool
    ) async throws -> FileSource.Update {
        while let update = await updates.next() {
            if condition(update) { return update }
        }
        throw CancellationError()
    }

    @Test func aDirectoryIsReadInTheOrderOfNames() throws {
        let folder = try Folder()
        try folder.replace("b.yaml", with: workload("b", "10.0.0.2"))
        try folder.replace("a.yml", with: workload("a", "10.0.0.1") + "---\n" + workload("c", "10.0.0.3"))
        try folder.replace("ignored.txt", with: "not: [yaml")
        try folder.replace(".hidden.yaml", with: "not: [yaml")
        let source = try FileSource(path: folder.path)
        #expect(source.state.objects.workloads.map(\.name.name) == ["a", "c", "b"])
        #expect(source.state.generation == 1)
        #expect(source.state.folder == folder.path)
        #expect(source.collections.workloads.list().map(\.name.name) == ["a", "b", "c"])
    }

    @Test func aBadFirstConfigurationIsAnError() throws {
        let folder = try Folder()
        try folder.replace("a.yaml", with: workload("a", "10.0.0.1") + "---\n" + workload("a", "10.0.0.1.1"))
        let error = #expect(throws: ConfigurationFailure.self) { try FileSource(path: folder.path) }
        guard case .invalid(let errors) = try #require(error) else {
            Issue.record("expected errors in the file")
            return
        }
        #expect(errors.map(\.line) == [6, 9])
    }

    @Test func aMissingPathIsNotAnEmptyConfiguration() throws {
        let folder = try Folder()
        #expect(throws: ConfigurationFailure.unreadable(path: folder.file("no"), reason: "No such file or directory")) {
            try FileSource(path: folder.file("no"))
        }
        #expect(try FileSource(path: folder.path).state.objects == ObjectSet())
    }

    @Test func changesAreFollowedAndMistakesKeepTheLastGoodState() async throws {
        let folder = try Folder()
        try folder.replace("a.yaml", with: workload("a", "10.0.0.1"))
        let source = try FileSource(path: folder.path, quiet: .zero)
        var updates = try source.updates().makeAsyncIterator()
        #expect(names(try await wait(&updates) { _ in true }) == ["a"])

        try folder.replace("b.yaml", with: workload("b", "10.0.0.2"))
        let added = try await wait(&updates) { names($0) == ["a", "b"] }
        #expect(added.state.generation == 2)
        #expect(added.state.snapshot.generation == 2)
        #expect(added.failure == nil)

        try folder.replace("b.yaml", with: "apiVersion: v1\nkind: Sausage\nmetadata: {name: b}\n")
        let refused = try await wait(&updates) { $0.failure != nil }
        #expect(names(refused) == ["a", "b"])
        #expect(refused.state.generation == 2)
        #expect(refused.failure?.description.contains("b.yaml:2: Sausage b: kind: unknown kind") == true)

        try folder.overwrite("b.yaml", with: workload("b", "10.0.0.9"))
        let repaired = try await wait(&updates) {
            $0.failure == nil && $0.state.objects.workloads.last?.addresses.first == IPAddress("10.0.0.9")
        }
        #expect(repaired.state.generation > 2)

        try folder.remove("b.yaml")
        #expect(try await wait(&updates) { names($0) == ["a"] }.failure == nil)
        #expect(source.collections.workloads.list().map(\.name.name) == ["a"])
    }

    @Test func aConfigMapVolumeIsFollowedThroughItsSymlinks() async throws {
        let folder = try Folder()
        try folder.makeDirectory("..1")
        try folder.replace("..1/mesh.yaml", with: workload("a", "10.0.0.1"))
        try folder.link("..data", to: "..1")
        try folder.link("mesh.yaml", to: "..data/mesh.yaml")
        let source = try FileSource(path: folder.path, quiet: .zero)
        var updates = try source.updates().makeAsyncIterator()
        #expect(names(try await wait(&updates) { _ in true }) == ["a"])

        for (number, name) in [(2, "b"), (3, "c")] {
            try folder.makeDirectory("..\(number)")
            try folder.replace("..\(number)/mesh.yaml", with: workload(name, "10.0.0.\(number)"))
            try folder.link("..data", to: "..\(number)")
            try folder.remove("..\(number - 1)")
            #expect(
                try await wait(&updates) { names($0) == [name] && $0.failure == nil }.state.objects.workloads.count == 1
            )
        }
    }

    @Test func oneFileIsFollowedThroughRenamesAndSymlinks() async throws {
        let folder = try Folder()
        try folder.makeDirectory("one")
        try folder.makeDirectory("two")
        try folder.replace("one/mesh.yaml", with: workload("a", "10.0.0.1"))
        try folder.replace("two/mesh.yaml", with: workload("b", "10.0.0.2"))
        try folder.link("current", to: "one")
        let source = try FileSource(path: folder.file("current/mesh.yaml"), quiet: .zero)
        var updates = try source.updates().makeAsyncIterator()
        #expect(names(try await wait(&updates) { _ in true }) == ["a"])
        #expect(source.state.folder == folder.file("current"))

        try folder.link("current", to: "two")
        _ = try await wait(&updates) { names($0) == ["b"] }
        try folder.replace("two/mesh.yaml", with: workload("c", "10.0.0.3"))
        _ = try await wait(&updates) { names($0) == ["c"] }
        try folder.overwrite("two/mesh.yaml", with: workload("d", "10.0.0.4"))
        _ = try await wait(&updates) { names($0) == ["d"] }
    }

    @Test func aPathThatGoesAwayAndComesBackIsFollowed() async throws {
        let folder = try Folder()
        try folder.makeDirectory("etc/culvert")
        try folder.replace("etc/culvert/mesh.yaml", with: workload("a", "10.0.0.1"))
        let source = try FileSource(path: folder.file("etc/culvert"), quiet: .zero)
        var updates = try source.updates().makeAsyncIterator()
        _ = try await wait(&updates) { _ in true }

        try #require(rename(folder.file("etc"), folder.file("old")) == 0)
        let gone = try await wait(&updates) {
            if case .unreadable = $0.failure { return true }
            return false
        }
        #expect(names(gone) == ["a"])

        try folder.makeDirectory("new/culvert")
        try folder.replace("new/culvert/mesh.yaml", with: workload("b", "10.0.0.2"))
        try #require(rename(folder.file("new"), folder.file("etc")) == 0)
        #expect(try await wait(&updates) { $0.failure == nil && names($0) == ["b"] }.state.generation == 2)
        try folder.replace("etc/culvert/more.yaml", with: workload("c", "10.0.0.3"))
        _ = try await wait(&updates) { names($0) == ["b", "c"] }
    }

    @Test func sayingTheSameAgainIsNoNews() async throws {
        let folder = try Folder()
        try folder.replace("a.yaml", with: workload("a", "10.0.0.1"))
        let source = try FileSource(path: folder.path, quiet: .zero)
        try folder.replace("a.yaml", with: workload("a", "10.0.0.1"))
        source.reload()
        #expect(source.state.generation == 1)
        try folder.replace("a.yaml", with: workload("a", "10.0.0.2"))
        source.reload()
        #expect(source.state.generation == 2)
    }

    @Test func everyReaderOfUpdatesGetsThem() async throws {
        let folder = try Folder()
        let source = try FileSource(path: folder.path, quiet: .zero)
        var first = try source.updates().makeAsyncIterator()
        var second = try source.updates().makeAsyncIterator()
        try folder.replace("a.yaml", with: workload("a", "10.0.0.1"))
        #expect(try await wait(&first) { names($0) == ["a"] }.state.generation == 2)
        #expect(try await wait(&second) { names($0) == ["a"] }.state.generation == 2)
    }

    @Test func theStreamEndsWithTheSource() async throws {
        let folder = try Folder()
        var source: FileSource? = try FileSource(path: folder.path, quiet: .zero)
        let updates = try #require(try source?.updates())
        source = nil
        for await _ in updates {}
    }

    @Test func whatIsNotAFileIsRefusedWithoutHanging() throws {
        let folder = try Folder()
        try #require(mkfifo(folder.file("pipe.yaml"), 0o600) == 0)
        let reading = try ConfigurationReading(path: folder.path)
        #expect(reading.errors.map(\.message) == ["expected a regular file"])
    }

    @Test func aFilePastTheLimitIsRefused() throws {
        let folder = try Folder()
        try folder.replace("big.yaml", with: String(repeating: "# padding\n", count: 900_000))
        let reading = try ConfigurationReading(path: folder.path)
        #expect(reading.errors.map(\.message) == ["expected at most 8388608 bytes, found more"])
    }
}
