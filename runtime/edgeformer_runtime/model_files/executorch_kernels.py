"""The kernels of ExecuTorch that a reader knows, and what each takes."""

from __future__ import annotations

KERNELS: dict[str, tuple[str, int]] = {
    "aten::_adaptive_avg_pool2d.out": ("TLT", 1), "aten::_log_softmax.out": ("TIBT", 1),
    "aten::_native_batch_norm_legit_no_training.out": ("TttTTDDTTT", 3), "aten::_softmax.out": ("TIBT", 1),
    "aten::abs.out": ("TT", 1), "aten::add.Scalar_out": ("TSST", 1), "aten::add.out": ("TTST", 1),
    "aten::addmm.out": ("TTTSST", 1), "aten::alias_copy.out": ("TT", 1), "aten::amax.out": ("TLBT", 1),
    "aten::amin.out": ("TLBT", 1), "aten::any.dim_out": ("TIBT", 1), "aten::any.dims_out": ("TlBT", 1),
    "aten::arange.start_out": ("SSST", 1), "aten::argmax.out": ("TiBT", 1), "aten::argmin.out": ("TiBT", 1),
    "aten::avg_pool2d.out": ("TLLLBBiT", 1), "aten::bitwise_and.Tensor_out": ("TTT", 1), "aten::bitwise_not.out":
    ("TT", 1), "aten::bitwise_or.Tensor_out": ("TTT", 1), "aten::bmm.out": ("TTT", 1), "aten::cat.out": ("VIT", 1),
    "aten::clamp.out": ("TssT", 1), "aten::clone.out": ("TiT", 1), "aten::constant_pad_nd.out": ("TLST", 1),
    "aten::convolution.out": ("TTtLLLBLIT", 1), "aten::copy.out": ("TTBT", 1), "aten::copy_.": ("TTB", 1),
    "aten::cos.out": ("TT", 1), "aten::cumsum.out": ("TIiT", 1), "aten::detach_copy.out": ("TT", 1),
    "aten::div.Scalar_out": ("TST", 1), "aten::div.out": ("TTT", 1), "aten::elu.out": ("TSSST", 1),
    "aten::embedding.out": ("TTIBBT", 1), "aten::eq.Scalar_out": ("TST", 1), "aten::eq.Tensor_out": ("TTT", 1),
    "aten::erf.out": ("TT", 1), "aten::exp.out": ("TT", 1), "aten::expand_copy.out": ("TLBT", 1),
    "aten::fill.Scalar_out": ("TST", 1), "aten::floor.out": ("TT", 1), "aten::full.out": ("LST", 1),
    "aten::full_like.out": ("TSiT", 1), "aten::gather.out": ("TITBT", 1), "aten::ge.Scalar_out": ("TST", 1),
    "aten::ge.Tensor_out": ("TTT", 1), "aten::gelu.out": ("TXT", 1), "aten::gt.Scalar_out": ("TST", 1),
    "aten::gt.Tensor_out": ("TTT", 1), "aten::hardtanh.out": ("TSST", 1), "aten::index.Tensor_out": ("TOT", 1),
    "aten::index_put.out": ("TOTBT", 1), "aten::index_put_.": ("TOTB", 1), "aten::index_select.out": ("TITT", 1),
    "aten::le.Scalar_out": ("TST", 1), "aten::le.Tensor_out": ("TTT", 1), "aten::leaky_relu.out": ("TST", 1),
    "aten::log.out": ("TT", 1), "aten::logical_and.out": ("TTT", 1), "aten::logical_not.out": ("TT", 1),
    "aten::logical_or.out": ("TTT", 1), "aten::lt.Scalar_out": ("TST", 1), "aten::lt.Tensor_out": ("TTT", 1),
    "aten::masked_fill.Scalar_out": ("TTST", 1), "aten::max.dim_max": ("TIBTT", 2),
    "aten::max_pool2d_with_indices.out": ("TLLLLBTT", 2), "aten::maximum.out": ("TTT", 1), "aten::mean.out":
    ("TlBiT", 1), "aten::minimum.out": ("TTT", 1), "aten::mm.out": ("TTT", 1), "aten::mul.Scalar_out": ("TST", 1),
    "aten::mul.out": ("TTT", 1), "aten::native_group_norm.out": ("TttIIIIDTTT", 3), "aten::native_layer_norm.out":
    ("TLttDTTT", 3), "aten::ne.Scalar_out": ("TST", 1), "aten::ne.Tensor_out": ("TTT", 1), "aten::neg.out": ("TT",
    1), "aten::permute_copy.out": ("TLT", 1), "aten::pixel_shuffle.out": ("TIT", 1), "aten::pow.Scalar_out": ("STT",
    1), "aten::pow.Tensor_Scalar_out": ("TST", 1), "aten::pow.Tensor_Tensor_out": ("TTT", 1),
    "aten::reciprocal.out": ("TT", 1), "aten::relu.out": ("TT", 1), "aten::repeat.out": ("TLT", 1),
    "aten::round.out": ("TT", 1), "aten::rsqrt.out": ("TT", 1), "aten::scalar_tensor.out": ("ST", 1),
    "aten::select_copy.int_out": ("TIIT", 1), "aten::select_scatter.out": ("TTIIT", 1), "aten::sigmoid.out": ("TT",
    1), "aten::sign.out": ("TT", 1), "aten::sin.out": ("TT", 1), "aten::slice_copy.Tensor_out": ("TIiiIT", 1),
    "aten::slice_scatter.out": ("TTIiiIT", 1), "aten::split_copy.Tensor_out": ("TIIV", 0),
    "aten::split_with_sizes_copy.out": ("TLIV", 0), "aten::sqrt.out": ("TT", 1), "aten::squeeze_copy.dim_out":
    ("TIT", 1), "aten::squeeze_copy.dims_out": ("TLT", 1), "aten::stack.out": ("VIT", 1), "aten::sub.Scalar_out":
    ("TSST", 1), "aten::sub.out": ("TTST", 1), "aten::sum.IntList_out": ("TlBiT", 1), "aten::t_copy.out": ("TT", 1),
    "aten::tanh.out": ("TT", 1), "aten::transpose_copy.int_out": ("TIIT", 1), "aten::tril.out": ("TIT", 1),
    "aten::unbind_copy.int_out": ("TIV", 0), "aten::unsqueeze_copy.out": ("TIT", 1), "aten::var.correction_out":
    ("TlsBT", 1), "aten::view_copy.out": ("TLT", 1), "aten::where.self_out": ("TTTT", 1),
    "dim_order_ops::_clone_dim_order.out": ("TBlT", 1), "dim_order_ops::_to_dim_order_copy.out": ("TBlT", 1),
    "executorch_prim::et_view.default": ("TL", 1), "quantized_decomposed::add.out": ("TDIIITDIIIDIIIT", 1),
    "quantized_decomposed::choose_qparams.Tensor_out": ("TIIDITT", 2),
    "quantized_decomposed::choose_qparams_per_token_asymmetric.out": ("TITT", 2),
    "quantized_decomposed::dequantize_per_channel.out": ("TTtIIIIiT", 1),
    "quantized_decomposed::dequantize_per_tensor.Tensor_out": ("TTTIIIiT", 1),
    "quantized_decomposed::dequantize_per_tensor.out": ("TDIIIIiT", 1),
    "quantized_decomposed::dequantize_per_token.out": ("TTTIIIIT", 1),
    "quantized_decomposed::embedding_4bit.dtype_out": ("TTtIITiT", 1), "quantized_decomposed::embedding_4bit.out":
    ("TTtIITT", 1), "quantized_decomposed::embedding_byte.dtype_out": ("TTtIITiT", 1),
    "quantized_decomposed::embedding_byte.out": ("TTtIITT", 1), "quantized_decomposed::quantize_per_channel.out":
    ("TTTIIIIT", 1), "quantized_decomposed::quantize_per_tensor.Tensor_out": ("TTTIIIT", 1),
    "quantized_decomposed::quantize_per_tensor.out": ("TDIIIIT", 1), "quantized_decomposed::quantize_per_token.out":
    ("TTTIIIT", 1),
}  # fmt: skip
"""By `name.overload` the kind of each operand, results included, and how many results there are.

Kinds: T tensor, V list of tensors, O list of tensors some of which are absent, I integer, B boolean, D float, S integer
or float or boolean, L list of integers, F list of floats, X text; in lower case, it may be absent.
"""


MOVES = frozenset({
    "aten::alias_copy.out", "aten::clone.out", "aten::detach_copy.out", "aten::expand_copy.out",
    "aten::permute_copy.out", "aten::repeat.out", "aten::select_copy.int_out", "aten::slice_copy.Tensor_out",
    "aten::squeeze_copy.dim_out", "aten::squeeze_copy.dims_out", "aten::t_copy.out", "aten::transpose_copy.int_out",
    "aten::unsqueeze_copy.out", "aten::view_copy.out", "dim_order_ops::_clone_dim_order.out",
    "dim_order_ops::_to_dim_order_copy.out", "executorch_prim::et_view.default",
})  # fmt: skip
"""The result's numbers are those of the first operand."""

INDICES = {
    "aten::embedding.out": 1, "quantized_decomposed::embedding_4bit.dtype_out": 5,
    "quantized_decomposed::embedding_4bit.out": 5, "quantized_decomposed::embedding_byte.dtype_out": 5,
    "quantized_decomposed::embedding_byte.out": 5,
}  # fmt: skip
"""Which operand numbers the rows of the first one."""
