/// The operators of Core ML's MIL that a reader knows: none runs another block, and none has results of unknown size.
enum MilOperators {
    /// Their names.
    static let all = Set(table.split(whereSeparator: \.isWhitespace).map(String.init))

    private static let table = """
        abs acos add asin atan atanh avg_pool batch_norm cast ceil clip concat constexpr_affine_dequantize
        constexpr_blockwise_shift_scale constexpr_cast constexpr_lut_to_dense conv coreml_update_state cos cosh
        cumsum depth_to_space dequantize einsum elu equal erf exp exp2 expand_dims fill floor floor_div gather
        gather_along_axis gather_nd gelu greater greater_equal identity instance_norm inverse l2_norm layer_norm
        leaky_relu less less_equal linear linear_activation log logical_and logical_not logical_or logical_xor
        matmul max_pool maximum minimum mod mul not_equal one_hot pad pixel_shuffle pixel_unshuffle pow prelu
        quantize read_state real_div reduce_argmax reduce_argmin reduce_l1_norm reduce_l2_norm reduce_log_sum
        reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_prod reduce_sum reduce_sum_square relu relu6
        reshape resize_bilinear resize_nearest_neighbor reverse round rsqrt scaled_dot_product_attention
        scaled_tanh scatter scatter_along_axis scatter_nd select sigmoid sigmoid_hard sign silu sin sinh
        slice_by_index slice_by_size slice_update softmax softplus softsign space_to_depth split sqrt square
        squeeze stack sub tan tanh threshold tile transpose upsample_bilinear upsample_nearest_neighbor
        write_state
        """
}
