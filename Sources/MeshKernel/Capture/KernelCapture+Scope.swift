public import MeshModel
internal import Synchronization

extension KernelCapture {
    /// Changes which connections of a captured workload are the mesh's, for those that are made from now on. A workload
    /// that is not captured is none of its business.
    /// - Returns: how many entries found no room in the kernel's maps. What they keep out is captured.
    @discardableResult
    public func setScope(_ scope: CaptureScope, of workload: ObjectName) throws(KernelError) -> Int {
        try state.withLock { state throws(KernelError) in
            guard let record = state.workloads[workload] else { return 0 }
            return try objects.scopes.set(scope, of: record.handle.slot, place: "\(workload)")
        }
    }
}
