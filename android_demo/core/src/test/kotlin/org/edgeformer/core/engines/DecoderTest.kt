package org.edgeformer.core.engines

import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.State
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import org.edgeformer.core.bucketLayout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

private const val HEADS = 2
private const val HEAD_DIM = 3
private const val LAYERS = 2

/** The caches, with programs whose new rows say which token, layer, head and component they are of. */
class DecoderTest {
    private val small = ModelBundle.open(Golden.file("tiny-speech.zip")).manifest.postprocessing as Transcription
    private val spec = small.copy(layers = LAYERS, heads = HEADS, headDim = HEAD_DIM)
    private val bucket = spec.buckets[0]

    @Test
    fun `a host keeps the rows of tokens where they were fed`() {
        val engine = RowEngine(spec)
        val decoder = engine.openDecoder(bucket, spec)
        decoder.encode(engine.mel())
        val mask = FloatArray(bucket.rows) { -1000f }
        val (first, last) = decoder.prefill(listOf(7, 8, 9), 0, 0, mask, 0 to 2)
        assertEquals(7f to 9f, first.logits[0] to last.logits[0])
        decoder.step(5, 3, 3, mask)
        assertEquals(6f, decoder.step(6, 4, 10, mask).logits[0])

        val fed = mapOf(0 to 7, 1 to 8, 2 to 9, 3 to 5, 10 to 6)
        val keys = engine.cache("self_k_1")
        val values = engine.cache("self_v_1")
        for (row in 0 until bucket.rows) {
            for (head in 0 until HEADS) {
                for (component in 0 until HEAD_DIM) {
                    val expected = fed[row]?.let { mark(it, 1, head, component) } ?: 0f
                    assertEquals(expected, keys[(head * HEAD_DIM + component) * bucket.rows + row])
                    assertEquals(0f - expected, values[(head * bucket.rows + row) * HEAD_DIM + component])
                }
            }
        }
    }

    @Test
    fun `a program is told the rows, and padding goes nowhere`() {
        val stateful = spec.copy(state = State.PROGRAM)
        val engine = RowEngine(stateful)
        var released = 0
        val decoder = ProgramStateDecoder(engine::run, bucket, stateful) { released++ }
        decoder.encode(engine.mel())
        decoder.prefill(listOf(7, 8), 4, 5, FloatArray(bucket.rows), 0 to 1)
        assertEquals(listOf(5, 6, bucket.rows, bucket.rows), engine.ints("rows"))
        assertEquals(listOf(7, 8, 8, 8), engine.ints("tokens"))
        assertEquals(listOf(4, 5, 5, 5), engine.ints("positions"))
        decoder.step(3, 6, 7, FloatArray(bucket.rows))
        assertEquals(listOf(7), engine.ints("row"))
        decoder.close()
        decoder.close()
        assertEquals(1, released)
    }

    @Test
    fun `what a decoder refuses`() {
        for (state in State.values()) {
            val engine = RowEngine(spec.copy(state = state))
            val decoder = engine.openDecoder(bucket, spec.copy(state = state))
            val mask = FloatArray(bucket.rows)
            assertThrows(EngineError::class.java) { decoder.step(1, 0, 0, mask) }
            decoder.encode(engine.mel())
            assertThrows(InputError::class.java) { decoder.step(1, 0, bucket.rows, mask) }
            assertThrows(InputError::class.java) { decoder.step(1, 0, 0, FloatArray(1)) }
            assertThrows(InputError::class.java) { decoder.prefill(emptyList(), 0, 0, mask, 0 to 0) }
            assertThrows(InputError::class.java) { decoder.prefill(List(5) { 1 }, 0, 0, mask, 0 to 0) }
            assertThrows(InputError::class.java) { decoder.prefill(listOf(1, 2), 0, 0, mask, 0 to 2) }
            assertThrows(InputError::class.java) { decoder.prefill(listOf(1, 2), 0, bucket.rows - 1, mask, 0 to 1) }
            decoder.close()
            assertThrows(EngineError::class.java) { decoder.step(1, 0, 0, mask) }
            engine.close()
            assertThrows(EngineError::class.java) { engine.run(bucket.encode, mapOf("mel" to engine.mel())) }
        }
    }

    @Test
    fun `what an engine refuses`() {
        val engine = RowEngine(spec)
        assertThrows(InputError::class.java) { engine.run("other", emptyMap()) }
        assertThrows(InputError::class.java) { engine.run(bucket.encode, emptyMap()) }
        val short = mapOf("mel" to FloatTensor.of(FloatArray(2), 2))
        assertThrows(InputError::class.java) { engine.run(bucket.encode, short) }
        val mel = IntTensor.of(IntArray(engine.mel().size), *engine.mel().shape.toIntArray())
        assertThrows(InputError::class.java) { engine.run(bucket.encode, mapOf("mel" to mel)) }
        engine.gives = { mapOf("cross_k_0" to FloatTensor.of(FloatArray(1), 1)) }
        assertThrows(EngineError::class.java) { engine.run(bucket.encode, mapOf("mel" to engine.mel())) }
        engine.gives = { throw IllegalStateException("out\nof memory") }
        val error = assertThrows(EngineError::class.java) { engine.run(bucket.encode, mapOf("mel" to engine.mel())) }
        assertEquals(1, error.message?.lines()?.size)
    }
}

private fun mark(token: Int, layer: Int, head: Int, component: Int) =
    token * 1000f + layer * 100 + head * 10 + component

/** Programs of one bucket whose logits begin with the token, and whose new rows are marked. */
private class RowEngine(private val spec: Transcription) : CheckedEngine(programs(spec)) {
    override val name = "rows"
    override val executedBy = "rows"
    var gives: (() -> Map<String, Tensor>)? = null
    private var seen: Map<String, Tensor> = emptyMap()

    fun mel() = FloatTensor.of(FloatArray(80 * 2 * spec.buckets[0].positions), 1, 80, 2 * spec.buckets[0].positions)

    fun cache(name: String) = (seen.getValue(name) as FloatTensor).toArray()

    fun ints(name: String) = (seen.getValue(name) as IntTensor).toArray().toList()

    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> {
        gives?.let { return it() }
        seen = inputs
        val tokens = ((inputs["tokens"] ?: inputs["token"]) as IntTensor?)?.toArray() ?: IntArray(0)
        val wanted = (inputs["wanted"] as IntTensor?)?.toArray() ?: intArrayOf(0)
        return program.outputs.associate { output ->
            val values = FloatArray(output.size)
            when (output.name.substringBefore('_')) {
                "logits" -> wanted.forEachIndexed { row, at -> values[row * spec.vocabSize] = tokens[at].toFloat() }
                "new" -> fill(values, output.name, tokens)
            }
            output.name to FloatTensor.of(values, *output.shape.toIntArray())
        }
    }

    /** Keys [H, D, N], and values [H, N, D] with the other sign. */
    private fun fill(values: FloatArray, name: String, tokens: IntArray) {
        val layer = name.substringAfterLast('_').toInt()
        for (head in 0 until HEADS) {
            for (component in 0 until HEAD_DIM) {
                tokens.forEachIndexed { index, token ->
                    val mark = mark(token, layer, head, component)
                    if ("_k_" in name) {
                        values[(head * HEAD_DIM + component) * tokens.size + index] = mark
                    } else {
                        values[(head * tokens.size + index) * HEAD_DIM + component] = -mark
                    }
                }
            }
        }
    }

    override fun release() = Unit

    companion object {
        fun programs(spec: Transcription) =
            bucketLayout(spec, spec.buckets[0], 80).map { ProgramSpec(it.name, "m", "main", it.inputs, it.outputs) }
    }
}
