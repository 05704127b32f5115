package org.edgeformer.core

/** Frames of a spectrogram in one position of the encoder. */
const val FRAMES_PER_POSITION = 2

/** One program's name and tensors. */
data class ProgramLayout(val name: String, val inputs: List<TensorSpec>, val outputs: List<TensorSpec>)

/** `<kind>_k_0`, `<kind>_v_0`, `<kind>_k_1`, ...: the names of one kind of cache ("cross", "self", "new"). */
fun cacheNames(layers: Int, kind: String): List<String> =
    (0 until layers).flatMap { layer -> listOf("${kind}_k_$layer", "${kind}_v_$layer") }

/**
 * `encode`, `prefill` and `decode` of a bucket, in this order, from the numbers in the manifest. BUNDLE.md has it in
 * words.
 *
 * Key: T positions computed from audio, S = T + tail, L slots of the self-attention cache, P tokens of a prefill,
 * V vocabulary, A alignment heads. Caches are flat: keys [H, D, S or L], values [H, S or L, D].
 */
fun bucketLayout(spec: Transcription, bucket: AudioBucket, nMels: Int): List<ProgramLayout> {
    val mel = TensorSpec("mel", "float32", listOf(1, nMels, FRAMES_PER_POSITION * bucket.positions))
    val wanted = TensorSpec("wanted", "int32", listOf(2))
    return listOf(
        ProgramLayout(bucket.encode, listOf(mel), cross(spec, bucket)),
        ProgramLayout(
            bucket.prefill,
            steered(spec, bucket, listOf("tokens", "positions", "rows"), spec.prefillTokens) + wanted,
            answered(spec, bucket, listOf(2, spec.vocabSize), spec.prefillTokens),
        ),
        ProgramLayout(
            bucket.decode,
            steered(spec, bucket, listOf("token", "position", "row"), 1),
            answered(spec, bucket, listOf(spec.vocabSize), 1),
        ),
    )
}

/** What prefill and decode take: tokens, positions and rows under their names, the mask, and the caches. */
private fun steered(spec: Transcription, bucket: AudioBucket, names: List<String>, count: Int): List<TensorSpec> {
    val (tokens, positions, rows) = names.map { TensorSpec(it, "int32", listOf(count)) }
    val mask = TensorSpec("mask", "float32", listOf(bucket.rows))
    return if (spec.state == State.HOST) {
        listOf(tokens, positions, mask) + caches(spec, "self", bucket.rows) + cross(spec, bucket)
    } else {
        listOf(tokens, positions, rows, mask) + cross(spec, bucket)
    }
}

/** What prefill and decode give: logits, alignment, and the rows that a host has to keep. */
private fun answered(spec: Transcription, bucket: AudioBucket, logits: List<Int>, count: Int): List<TensorSpec> {
    val alignment = TensorSpec("alignment", "float32", listOf(spec.alignmentHeads, bucket.positions + bucket.tail))
    val kept = if (spec.state == State.HOST) caches(spec, "new", count) else emptyList()
    return listOf(TensorSpec("logits", "float32", logits), alignment) + kept
}

private fun cross(spec: Transcription, bucket: AudioBucket) = caches(spec, "cross", bucket.positions + bucket.tail)

private fun caches(spec: Transcription, kind: String, length: Int): List<TensorSpec> {
    val size = sizeOf(listOf(spec.heads, spec.headDim, length))
    return cacheNames(spec.layers, kind).map { TensorSpec(it, "float32", listOf(size)) }
}
