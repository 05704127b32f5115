#if canImport(Darwin)
    import Darwin
#endif

/// The memory that the system charges the app with.
enum MemoryFootprint {
    /// In bytes, as the system's own limit counts it; nil on systems that do not tell.
    static func bytes() -> Int? {
        #if canImport(Darwin)
            var info = task_vm_info_data_t()
            var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
            let result = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
                }
            }
            return result == KERN_SUCCESS ? Int(info.phys_footprint) : nil
        #else
            return nil
        #endif
    }
}
