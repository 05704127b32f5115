package org.edgeformer.core

import kotlin.math.abs
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.ClassificationResult
import org.edgeformer.core.pipelines.EmbeddingResult
import org.edgeformer.core.pipelines.EntityFinder
import org.edgeformer.core.pipelines.EntityResult
import org.edgeformer.core.pipelines.FillResult
import org.edgeformer.core.pipelines.ImageClassifier
import org.edgeformer.core.pipelines.ImageEmbedder
import org.edgeformer.core.pipelines.ImageTextComparer
import org.edgeformer.core.pipelines.MaskFiller
import org.edgeformer.core.pipelines.Measured
import org.edgeformer.core.pipelines.Prepared
import org.edgeformer.core.pipelines.ProgramPipeline
import org.edgeformer.core.pipelines.QuestionAnswerer
import org.edgeformer.core.pipelines.ScoreResult
import org.edgeformer.core.pipelines.SpanProbabilities
import org.edgeformer.core.pipelines.SpanResult
import org.edgeformer.core.pipelines.TextClassifier
import org.edgeformer.core.pipelines.TextEmbedder
import org.edgeformer.core.pipelines.TextScorer
import org.edgeformer.core.pipelines.labelProbabilities
import org.edgeformer.core.pipelines.onlyRow
import org.edgeformer.core.pipelines.softmax
import org.edgeformer.core.pipelines.tokenLogits
import org.edgeformer.core.preprocess.ImageDecoder

/** Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's. */
private const val PIXEL_TOLERANCE_LEVELS = 2.01

/** Between recorded scores and those of the recorded logits: the rounding of float32 in another implementation. */
private const val RECORDED_TOLERANCE = 1e-4

/** Replays cases whose answer is one program's outputs: the stages "preprocess", each program's name, and "answer". */
internal class ProgramReplay(
    bundle: ModelBundle,
    engine: Engine,
    decoder: ImageDecoder,
    private val tolerances: Tolerances,
    cases: List<Case>,
) : Replay {
    private val scales = Scales(cases.map { case -> case.outputs.mapValues { (_, tensor) -> doubles(tensor) } })
    private val manifest = bundle.manifest
    private val player = when (manifest.task) {
        Task.TEXT_CLASSIFICATION -> Player(TextClassifier(bundle, engine), ::scoresOf)
        Task.TEXT_EMBEDDING -> Player(TextEmbedder(bundle, engine), ::vectorOf)
        Task.TEXT_SCORING -> Player(TextScorer(bundle, engine), ::scoreOf)
        Task.IMAGE_CLASSIFICATION -> Player(ImageClassifier(bundle, engine, decoder), ::scoresOf)
        Task.IMAGE_EMBEDDING -> Player(ImageEmbedder(bundle, engine, decoder), ::vectorOf)
        Task.IMAGE_TEXT -> Player(ImageTextComparer(bundle, engine, decoder), ::comparedOf)
        Task.QUESTION_ANSWERING -> Player(QuestionAnswerer(bundle, engine), ::scoresOfSpans)
        Task.TOKEN_CLASSIFICATION -> Player(EntityFinder(bundle, engine), ::scoresOfEntities)
        Task.FILL_MASK -> Player(MaskFiller(bundle, engine), ::scoresOfFills)
        Task.SPEECH_RECOGNITION -> error("speech has another replay")
    }
    private val found = LinkedHashMap<String, MutableList<Comparison>>().apply {
        for (name in listOf("preprocess") + manifest.programs.map { it.name } + "answer") put(name, ArrayList())
    }

    override fun play(case: Case) {
        found.getValue("preprocess").add(player.preprocess(case, inputTolerance()))
        found.getValue(case.program).add(program(case))
        found.getValue("answer").add(answer(case))
    }

    override fun comparisons(): Map<String, List<Comparison>> = found

    private fun program(case: Case): Comparison {
        val outputs = try {
            player.pipeline.engine.run(case.program, case.inputs)
        } catch (error: EngineError) {
            return Comparison.failed(case.outputs.keys.maxOf { scales.limit(it, tolerances.output) }, error)
        }
        return Comparison.worst(case.outputs.map { (name, tensor) -> compare(name, outputs.getValue(name), tensor) })
    }

    private fun compare(name: String, found: Tensor, reference: Tensor): Comparison {
        if (found.shape != reference.shape) return Comparison.failed(scales.limit(name, tolerances.output))
        return scales.compare(name, doubles(found), doubles(reference), tolerances.output)
    }

    /** The whole way from raw input: scores in the order of the recorded labels, the embedding, or the score. */
    private fun answer(case: Case): Comparison {
        if (case.expected is Expected.Spans || case.expected is Expected.Entities || case.expected is Expected.Fills) {
            return places(case)
        }
        val head = manifest.postprocessing
        val reference = when (val expected = case.expected) {
            is Expected.Scores -> expected.scores.toDoubleArray()
            else -> if (head is Score) player.recordedAnswer(case) else doubles(case.outputs.values.single())
        }
        val isScored = when (head) {
            is Embedding -> head.normalized
            is Score -> head.isSigmoid
            else -> true
        }
        val tolerance = if (isScored) tolerances.score else scales.limit(case.outputs.keys.single(), tolerances.output)
        val answer = try {
            player.answer(case)
        } catch (error: EngineError) {
            return Comparison.failed(tolerance, error)
        }
        return misnamed(case) ?: Comparison.of(answer, reference, tolerance)
    }

    /**
     * Answers that are places: the recorded outputs of an only window give the recorded places exactly; the engine's
     * are close to the recorded probabilities. Which place is the best may hang on the last digit.
     */
    private fun places(case: Case): Comparison {
        val window = player.windows(case)
        val found = try {
            probabilities(player.pipeline.engine.run(window[0].program, window[0].inputs), window[0])
        } catch (error: EngineError) {
            return Comparison.failed(tolerances.score, error)
        }
        val misplaced = if (window.size == 1) misplaced(case) else null
        return misplaced ?: Comparison.of(found, probabilities(case.outputs, window[0]), tolerances.score)
    }

    private fun misplaced(case: Case): Comparison? {
        val scores = player.recordedAnswer(case)
        val expected = when (val recorded = case.expected) {
            is Expected.Spans -> recorded.answers.map { it.score }
            is Expected.Fills -> recorded.fills.map { it.score }
            else -> (recorded as Expected.Entities).entities.map { it.score }
        }
        if (scores.any { it.isNaN() }) {
            val what = if (case.expected is Expected.Fills) "tokens" else "places in the text"
            val reason = "the recorded outputs give other $what"
            return Comparison(null, null, RECORDED_TOLERANCE, ok = false, reason)
        }
        val comparison = Comparison.of(scores, expected.toDoubleArray(), RECORDED_TOLERANCE)
        if (comparison.ok) return null
        val reason = "the recorded outputs give other scores"
        return Comparison(comparison.maxAbs, comparison.cosine, RECORDED_TOLERANCE, ok = false, reason)
    }

    /** What a window's tokens have, by which places are chosen; of a mask what each token of the vocabulary has. */
    private fun probabilities(outputs: Map<String, Tensor>, window: Prepared): DoubleArray {
        val places = window.places ?: return softmax(onlyRow(outputs))
        return when (val head = manifest.postprocessing) {
            is TokenLabels -> labelProbabilities(tokenLogits(outputs, places, head.labels.size), head.labels.size)
                .flatMap { it.toList() }.toDoubleArray()
            else -> SpanProbabilities.of(tokenLogits(outputs, places, SPAN_ENDS), places).let { it.starts + it.ends }
        }
    }

    /**
     * What is wrong with the labels where the recorded logits do not give the recorded answer, without any engine: so
     * labels in another order are named whatever the precision is, and however unlikely they are.
     */
    private fun misnamed(case: Case): Comparison? {
        val expected = case.expected as? Expected.Scores ?: return null
        if (manifest.postprocessing !is Classification) return null // of a call's labels the outputs are an embedding
        val found = player.recordedAnswer(case)
        val scores = expected.scores.toDoubleArray()
        val comparison = Comparison.of(found, scores, RECORDED_TOLERANCE)
        if (comparison.ok) return null
        val wrong = expected.labels.filterIndexed { index, _ -> abs(found[index] - scores[index]) > RECORDED_TOLERANCE }
        val isMoved = Comparison.of(found.sortedArray(), scores.sortedArray(), RECORDED_TOLERANCE).ok
        val pair = wrong.joinToString(" and ") { shorten(it) }
        val reason = when {
            !isMoved -> "the recorded logits do not give the recorded scores: the activation is another"
            wrong.size == 2 -> "the scores are right, but the labels $pair are exchanged"
            else -> "the scores are right, but ${wrong.size} labels stand in another order"
        }
        return Comparison(comparison.maxAbs, comparison.cosine, RECORDED_TOLERANCE, ok = false, reason)
    }

    /**
     * Token ids have no tolerance: each of them selects another row of the embedding table. Pixels have a small one.
     */
    private fun inputTolerance(): Double {
        val spec = pixelsOf(manifest) ?: return 0.0
        return PIXEL_TOLERANCE_LEVELS / (255 * spec.std.min())
    }
}

/** A pipeline, and its answers as numbers in the order of the recorded ones. */
private class Player<Raw, Answer>(
    val pipeline: ProgramPipeline<Raw, Answer>,
    private val numbers: (Answer, Expected) -> DoubleArray,
) {
    fun preprocess(case: Case, tolerance: Double): Comparison {
        val prepared = try {
            pipeline.prepare(pipeline.rawFromJson(case.raw))
        } catch (error: InputError) {
            throw BundleError("$CASES_FILE: the input ${shorten(case.raw)} cannot be used: ${error.message}", error)
        }
        if (prepared.program != case.program) return Comparison.failed(tolerance)
        return Comparison.worst(
            case.inputs.map { (name, tensor) -> Comparison.of(prepared.inputs.getValue(name), tensor, tolerance) },
        )
    }

    fun windows(case: Case): List<Prepared> = pipeline.windows(pipeline.rawFromJson(case.raw))

    /** The answer that the recorded outputs give. */
    fun recordedAnswer(case: Case): DoubleArray =
        numbers(pipeline.answer(case.outputs, pipeline.prepare(pipeline.rawFromJson(case.raw))), case.expected)

    fun answer(case: Case): DoubleArray = numbers(pipeline.run(pipeline.rawFromJson(case.raw)), case.expected)
}

private fun scoresOf(answer: ClassificationResult, expected: Expected): DoubleArray {
    val scores = answer.labels.zip(answer.scores).toMap()
    return (expected as Expected.Scores).labels.map { scores.getValue(it) }.toDoubleArray()
}

@Suppress("UNUSED_PARAMETER")
private fun vectorOf(answer: EmbeddingResult, expected: Expected): DoubleArray =
    DoubleArray(answer.vector.size) { answer.vector[it].toDouble() }

/** Scores of labels, or an embedding. */
private fun comparedOf(answer: Measured, expected: Expected): DoubleArray =
    if (answer is EmbeddingResult) vectorOf(answer, expected) else scoresOf(answer as ClassificationResult, expected)

@Suppress("UNUSED_PARAMETER")
private fun scoreOf(answer: ScoreResult, expected: Expected): DoubleArray = doubleArrayOf(answer.score)

/** The scores of the recorded answers; no number where these are other places. */
private fun scoresOfSpans(answer: SpanResult, expected: Expected): DoubleArray {
    val recorded = (expected as Expected.Spans).answers
    val isSame = answer.answers.map { it.copy(score = 0.0) } == recorded.map { it.copy(score = 0.0) }
    return if (isSame) answer.answers.map { it.score }.toDoubleArray() else doubleArrayOf(Double.NaN)
}

/** The scores of the recorded entities; no number where these are other places. */
private fun scoresOfEntities(answer: EntityResult, expected: Expected): DoubleArray {
    val recorded = (expected as Expected.Entities).entities
    val isSame = answer.entities.map { it.copy(score = 0.0) } == recorded.map { it.copy(score = 0.0) }
    return if (isSame) answer.entities.map { it.score }.toDoubleArray() else doubleArrayOf(Double.NaN)
}

/** The scores of the recorded tokens; no number where these are other ones. */
private fun scoresOfFills(answer: FillResult, expected: Expected): DoubleArray {
    val recorded = (expected as Expected.Fills).fills
    val isSame = answer.fills.map { it.copy(score = 0.0) } == recorded.map { it.copy(score = 0.0) }
    return if (isSame) answer.fills.map { it.score }.toDoubleArray() else doubleArrayOf(Double.NaN)
}
