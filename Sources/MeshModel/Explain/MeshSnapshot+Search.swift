/// What a name may turn out to be.
public enum WorkloadSearch: Hashable, Sendable {
    case found(Workload)
    /// A name without a namespace that several have.
    case ambiguous([ObjectName])
    /// With names that somebody may have meant.
    case unknown(near: [ObjectName])
}

extension MeshSnapshot {
    /// How many names a search suggests at most.
    static let maximumSuggestions = 5

    /// Finds a workload by `NAMESPACE/NAME`, or by `NAME` where that is enough.
    public func search(workload text: String) -> WorkloadSearch {
        let wanted: String
        if let name = ObjectName(text) {
            if let workload = workload(named: name) { return .found(workload) }
            wanted = name.name
        } else {
            let named = workloads.filter { $0.name.name == text }
            if named.count > 1 { return .ambiguous(named.map(\.name).sorted()) }
            if let only = named.first { return .found(only) }
            wanted = text.split(separator: "/").last.map(String.init) ?? text
        }
        return .unknown(near: near(wanted))
    }

    /// The same name elsewhere first, then names of few other letters, then those that go on like it.
    private func near(_ wanted: String) -> [ObjectName] {
        guard !wanted.isEmpty else { return [] }
        let letters = Array(wanted.utf8)
        let ranked = workloads.compactMap { workload -> (rank: Int, name: ObjectName)? in
            let name = workload.name.name
            let other = Array(name.utf8)
            // Two letters that changed places are two changes; more than a third of the letters is another name.
            let limit = letters.count < 4 ? 1 : max(2, letters.count / 3)
            if let distance = editDistance(letters, other, atMost: limit) { return (distance, workload.name) }
            return name.hasPrefix(wanted) || wanted.hasPrefix(name) ? (limit + 1, workload.name) : nil
        }
        return ranked.sorted { ($0.rank, $0.name) < ($1.rank, $1.name) }.prefix(Self.maximumSuggestions).map(\.name)
    }
}

/// Letters to change, add or leave out to get from one word to the other (Levenshtein); nil: more than `limit`.
func editDistance(_ left: [UInt8], _ right: [UInt8], atMost limit: Int) -> Int? {
    if abs(left.count - right.count) > limit { return nil }
    var row = Array(0...right.count)
    for (i, letter) in left.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, other) in right.enumerated() {
            let above = row[j + 1]
            row[j + 1] = min(above + 1, row[j] + 1, diagonal + (letter == other ? 0 : 1))
            diagonal = above
        }
    }
    return row[right.count] <= limit ? row[right.count] : nil
}
