/// What a kernel of ExecuTorch takes.
struct PteKernel: Sendable {
    /// Of each operand, results included, as letters: T tensor, V list of tensors, O list of tensors some of which are absent, I
    /// integer, B boolean, D float, S integer or float or boolean, L list of integers, F list of floats, X text; in lower
    /// case, it may be absent.
    let kinds: [Character]
    /// How many of the operands are results.
    let results: Int

    /// The kernels that a reader knows, by `name.overload`.
    static let all: [String: PteKernel] = {
        var found: [String: PteKernel] = [:]
        for line in table.split(separator: "\n") {
            let words = line.split(separator: " ")
            for name in words.dropFirst(2) {
                found[String(name)] = PteKernel(kinds: Array(words[0]), results: Int(words[1]) ?? 0)
            }
        }
        return found
    }()

    /// The result's numbers are those of the first operand.
    static let moves: Set<String> = [
        "aten::alias_copy.out", "aten::clone.out", "aten::detach_copy.out", "aten::expand_copy.out",
        "aten::permute_copy.out", "aten::repeat.out", "aten::select_copy.int_out", "aten::slice_copy.Tensor_out",
        "aten::squeeze_copy.dim_out", "aten::squeeze_copy.dims_out", "aten::t_copy.out",
        "aten::transpose_copy.int_out", "aten::unsqueeze_copy.out", "aten::view_copy.out",
        "dim_order_ops::_clone_dim_order.out", "dim_order_ops::_to_dim_order_copy.out",
        "executorch_prim::et_view.default",
    ]

    /// Which operand numbers the rows of the first one.
    static let indices: [String: Int] = [
        "aten::embedding.out": 1, "quantized_decomposed::embedding_4bit.dtype_out": 5,
        "quantized_decomposed::embedding_4bit.out": 5, "quantized_decomposed::embedding_byte.dtype_out": 5,
        "quantized_decomposed::embedding_byte.out": 5,
    ]

    /// In each line, what kernels take, how many results they have, and their names.
    private static let table = """
        TIBT 1 aten::_log_softmax.out aten::_softmax.out
        TttTTDDTTT 3 aten::_native_batch_norm_legit_no_training.out
        TT 1 aten::abs.out aten::alias_copy.out aten::bitwise_not.out aten::cos.out aten::erf.out
        TT 1 aten::exp.out aten::floor.out aten::log.out aten::logical_not.out aten::neg.out
        TT 1 aten::reciprocal.out aten::relu.out aten::round.out aten::rsqrt.out aten::sigmoid.out
        TT 1 aten::sign.out aten::sin.out aten::sqrt.out aten::t_copy.out aten::tanh.out
        TSST 1 aten::add.Scalar_out aten::hardtanh.out aten::sub.Scalar_out
        TTST 1 aten::add.out aten::masked_fill.Scalar_out aten::sub.out
        TTTSST 1 aten::addmm.out
        TLBT 1 aten::amax.out aten::amin.out aten::expand_copy.out
        TiBT 1 aten::argmax.out aten::argmin.out
        TLLLBBiT 1 aten::avg_pool2d.out
        TTT 1 aten::bitwise_and.Tensor_out aten::bitwise_or.Tensor_out aten::bmm.out aten::div.out
        TTxT 1 aten::div.out_mode
        TlBfT 1 aten::upsample_bilinear2d.vec_out
        TlfT 1 aten::upsample_nearest2d.vec_out
        TTT 1 aten::eq.Tensor_out aten::ge.Tensor_out aten::gt.Tensor_out aten::le.Tensor_out
        TTT 1 aten::logical_and.out aten::logical_or.out aten::lt.Tensor_out aten::maximum.out
        TTT 1 aten::minimum.out aten::mm.out aten::mul.out aten::ne.Tensor_out aten::pow.Tensor_Tensor_out
        VIT 1 aten::cat.out aten::stack.out
        TssT 1 aten::clamp.out
        TiT 1 aten::clone.out
        TLST 1 aten::constant_pad_nd.out
        TTtLLLBLIT 1 aten::convolution.out
        TTBT 1 aten::copy.out
        TIiT 1 aten::cumsum.out
        TST 1 aten::div.Scalar_out aten::eq.Scalar_out aten::fill.Scalar_out aten::ge.Scalar_out
        TST 1 aten::gt.Scalar_out aten::le.Scalar_out aten::leaky_relu.out aten::lt.Scalar_out
        TST 1 aten::mul.Scalar_out aten::ne.Scalar_out aten::pow.Tensor_Scalar_out
        TTIBBT 1 aten::embedding.out
        LST 1 aten::full.out
        TSiT 1 aten::full_like.out
        TITBT 1 aten::gather.out
        TXT 1 aten::gelu.out
        TOT 1 aten::index.Tensor_out
        TOTBT 1 aten::index_put.out
        TITT 1 aten::index_select.out
        TIBTT 2 aten::max.dim_max
        TLLLLBTT 2 aten::max_pool2d_with_indices.out
        TlBiT 1 aten::mean.out aten::sum.IntList_out
        TttIIIIDTTT 3 aten::native_group_norm.out
        TLttDTTT 3 aten::native_layer_norm.out
        TLT 1 aten::permute_copy.out aten::repeat.out aten::squeeze_copy.dims_out aten::view_copy.out
        STT 1 aten::pow.Scalar_out
        TIIT 1 aten::select_copy.int_out aten::transpose_copy.int_out
        TTIIT 1 aten::select_scatter.out
        TIiiIT 1 aten::slice_copy.Tensor_out
        TTIiiIT 1 aten::slice_scatter.out
        TIIV 0 aten::split_copy.Tensor_out
        TLIV 0 aten::split_with_sizes_copy.out
        TIT 1 aten::squeeze_copy.dim_out aten::tril.out aten::unsqueeze_copy.out
        TIV 0 aten::unbind_copy.int_out
        TlsBT 1 aten::var.correction_out
        TTTT 1 aten::where.self_out
        TBlT 1 dim_order_ops::_clone_dim_order.out dim_order_ops::_to_dim_order_copy.out
        TL 1 executorch_prim::et_view.default
        TTtIITiT 1 quantized_decomposed::embedding_4bit.dtype_out
        TTtIITiT 1 quantized_decomposed::embedding_byte.dtype_out
        TTtIITT 1 quantized_decomposed::embedding_4bit.out quantized_decomposed::embedding_byte.out
        """
}
