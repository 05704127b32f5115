/// What a `.pte` may hold (ExecuTorch's program.fbs), slot by slot.
enum PteLayout {
    // InstructionArguments that a reader takes: none moves or jumps.
    static let kernelCall = 1
    static let delegateCall = 2
    static let freeCall = 5

    /// KernelTypes as letters, from 1 on: nothing, integer, boolean, float, tensor, text, then lists, the last two of tensors.
    static let kinds: [Character] = Array("NIBDTXLFAVO")

    /// The file.
    static let program = FlatShape(
        .number(4),  // version
        .tables { plan },
        .tables { constant },
        .tables { constant },  // backend_delegate_data
        .tables { FlatShape(.number(8), .number(8)) },  // segments
        .table { subsegments },  // constant_segment
        .tables { subsegments },  // mutable_data_segments
        .tables { FlatShape(.text, .number(4)) }  // named_data
    )

    private static let constant = FlatShape(.numbers(1))
    private static let subsegments = FlatShape(.number(4), .numbers(8))
    private static let names = FlatShape(.text, .text)

    private static let plan = FlatShape(
        .text,  // name
        .table { names },  // container_meta_type
        .tables { FlatShape(.number(1), .union(value)) },
        .numbers(4),  // inputs
        .numbers(4),  // outputs
        .tables { chain },
        .tables { names },  // operators
        .tables { delegate },
        .numbers(8),  // non_const_buffer_sizes
        .tables { FlatShape(.number(4), .number(1), .number(1)) }  // non_const_buffer_device
    )

    private static let delegate = FlatShape(
        .text, .table { FlatShape(.number(1), .number(4)) }, .tables { FlatShape(.text, .numbers(1)) })

    private static let chain = FlatShape(
        .numbers(4), .numbers(4), .tables { FlatShape(.number(1), .union(call)) },
        .tables { FlatShape(.tables { FlatShape(.text, .number(4), .text, .text) }) })

    @Sendable
    private static func call(_ kind: Int) -> FlatShape? {
        switch kind {
        case kernelCall, delegateCall: FlatShape(.number(4), .numbers(4))
        case freeCall: FlatShape(.number(4))
        default: nil
        }
    }

    @Sendable
    private static func value(_ kind: Int) -> FlatShape? {
        switch letter(kind) {
        case "N": FlatShape([])
        case "I", "D": FlatShape(.number(8))
        case "B": FlatShape(.number(1))
        case "T": tensor
        case "X": FlatShape(.text)
        case "L", "F": FlatShape(.numbers(8))
        case "A": FlatShape(.numbers(1))
        case "V", "O": FlatShape(.numbers(4))
        default: nil
        }
    }

    /// The letter of a kind of value; nil: there is none of that number.
    static func letter(_ kind: Int) -> Character? { (1...kinds.count).contains(kind) ? kinds[kind - 1] : nil }

    private static let tensor = FlatShape(
        .number(1),  // scalar_type
        .number(4),  // storage_offset
        .numbers(4),  // sizes
        .numbers(1),  // dim_order
        .number(1),  // requires_grad
        .number(4),  // data_buffer_idx
        .table { FlatShape(.number(4), .number(4), .number(4)) },  // allocation_info
        .number(1),  // layout
        .number(1),  // shape_dynamism
        .table { FlatShape(.number(8), .text, .number(1), .number(1), .number(1)) }  // extra_tensor_info
    )
}
