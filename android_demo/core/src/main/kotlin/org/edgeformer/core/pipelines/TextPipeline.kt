package org.edgeformer.core.pipelines

import org.edgeformer.core.Classification
import org.edgeformer.core.InputError
import org.edgeformer.core.MaskedToken
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Score
import org.edgeformer.core.Task
import org.edgeformer.core.Tensor
import org.edgeformer.core.TextPreprocessing
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.RawText
import org.edgeformer.core.preprocess.TextEncoder

/** What text pipelines share: the encoder, and what one input looks like. */
abstract class TextPipeline<Answer : Measured>(bundle: ModelBundle, engine: Engine) :
    ProgramPipeline<RawText, Answer>(bundle, engine) {
    protected val encoder: TextEncoder

    init {
        val spec = bundle.manifest.preprocessing as TextPreprocessing
        encoder = TextEncoder(spec, spec.tokenizer?.let(bundle::readBytes), bundle.manifest.programs)
    }

    override fun prepare(raw: RawText): Prepared {
        val encoded = encoder.encode(raw)
        return Prepared(encoded.program, encoded.inputs, encoded.truncated)
    }

    /** {"text", "pair"?} or {"token_ids"}. */
    final override fun rawFromJson(stored: Map<String, Any?>): RawText {
        val ids = stored["token_ids"] as List<*>?
        if (ids != null) return RawText.TokenIds(ids.map { it as Int })
        val text = stored["text"] as String
        return stored["pair"]?.let { RawText.Pair(text, it as String) } ?: RawText.Single(text)
    }
}

/**
 * The pipeline of any task that reads texts.
 *
 * @throws InputError the bundle's task does not.
 */
fun openTextPipeline(bundle: ModelBundle, engine: Engine): TextPipeline<*> = when (val task = bundle.manifest.task) {
    Task.TEXT_CLASSIFICATION -> TextClassifier(bundle, engine)
    Task.TEXT_EMBEDDING -> TextEmbedder(bundle, engine)
    Task.TEXT_SCORING -> TextScorer(bundle, engine)
    Task.QUESTION_ANSWERING -> QuestionAnswerer(bundle, engine)
    Task.TOKEN_CLASSIFICATION -> EntityFinder(bundle, engine)
    Task.FILL_MASK -> MaskFiller(bundle, engine)
    else -> throw InputError("${task.key} does not read texts")
}

/** Scores every label of the bundle for a text. */
class TextClassifier(bundle: ModelBundle, engine: Engine) : TextPipeline<ClassificationResult>(bundle, engine) {
    private val head = bundle.manifest.postprocessing as Classification

    /** Answers one text. */
    fun run(text: String): ClassificationResult = run(RawText.Single(text))

    /** Scores labels of the call's own, with a model of natural language inference. */
    fun run(text: String, options: ZeroShotOptions): ClassificationResult {
        entailmentOf(head)
        val hypotheses = options.labels.map { RawText.Pair(text, options.template.replace("{}", it)) }
        return timed(RawText.Single(text), { hypotheses.map(::prepare) }) { outputs, windows ->
            zeroShot(outputs.map(::onlyRow), head, options, windows.any { it.truncated })
        }
    }

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        classify(outputs, head, prepared.truncated)

    override fun withStatistics(answer: ClassificationResult, statistics: Statistics) =
        answer.copy(statistics = statistics)
}

/** Gives a text's score, or a pair's. */
class TextScorer(bundle: ModelBundle, engine: Engine) : TextPipeline<ScoreResult>(bundle, engine) {
    /** Answers one text. */
    fun run(text: String): ScoreResult = run(RawText.Single(text))

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        score(outputs, bundle.manifest.postprocessing as Score, prepared.truncated)

    override fun withStatistics(answer: ScoreResult, statistics: Statistics) = answer.copy(statistics = statistics)
}

/** Gives a text's embedding. */
class TextEmbedder(bundle: ModelBundle, engine: Engine) : TextPipeline<EmbeddingResult>(bundle, engine) {
    /** Answers one text. */
    fun run(text: String): EmbeddingResult = run(RawText.Single(text))

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) = embed(outputs, prepared.truncated)

    override fun withStatistics(answer: EmbeddingResult, statistics: Statistics) =
        EmbeddingResult(answer.vector, answer.truncated, statistics)
}

/** Tokens that are told for each mask. */
const val DEFAULT_FILLS = 5
const val MAX_FILLS = 100
const val MAX_TARGETS = 1000

/**
 * What a masked text may ask for.
 *
 * @property top how many tokens for each mask.
 * @property targets the only ones that are wanted, each a token of the vocabulary or a word that is one; null: all.
 */
data class FillOptions(val top: Int = DEFAULT_FILLS, val targets: List<String>? = null) {
    init {
        if (top !in 1..MAX_FILLS) throw InputError("top: expected 1 to $MAX_FILLS tokens, found $top")
        if (targets != null && targets.size !in 1..MAX_TARGETS) {
            throw InputError("targets: expected 1 to $MAX_TARGETS words, found ${targets.size}")
        }
    }
}

/** Predicts the masked tokens of a text, each by itself. */
class MaskFiller(bundle: ModelBundle, engine: Engine) : TextPipeline<FillResult>(bundle, engine) {
    private val head = bundle.manifest.postprocessing as MaskedToken

    /** Answers one text. */
    fun run(text: String, options: FillOptions = FillOptions()): FillResult =
        timed(RawText.Single(text)) { outputs, windows -> fills(outputs, windows, options) }

    /** A run for each mask of the text. */
    override fun windows(raw: RawText): List<Prepared> {
        val text = (raw as? RawText.Single)?.text
            ?: throw InputError("expected one text, found a pair of texts or token ids")
        return encoder.atMasks(text, head).map { Prepared(it.program, it.inputs, it.truncated) }
    }

    /** The first mask. */
    override fun prepare(raw: RawText): Prepared = windows(raw)[0]

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared): FillResult =
        answerWindows(listOf(outputs), listOf(prepared))

    override fun answerWindows(outputs: List<Map<String, Tensor>>, windows: List<Prepared>): FillResult =
        fills(outputs, windows, FillOptions())

    private fun fills(outputs: List<Map<String, Tensor>>, windows: List<Prepared>, options: FillOptions): FillResult {
        val wanted = options.targets?.map(encoder::tokenOf)?.distinct()?.sorted()
        val found = outputs.flatMapIndexed { mask, output ->
            val scores = softmax(onlyRow(output))
            (wanted ?: scores.indices.toList())
                .sortedByDescending { scores[it] } // stable
                .take(options.top)
                .map { Fill(it, encoder.textOf(it), scores[it], mask) }
        }
        return FillResult(found, windows[0].truncated)
    }

    override fun withStatistics(answer: FillResult, statistics: Statistics) = answer.copy(statistics = statistics)
}
