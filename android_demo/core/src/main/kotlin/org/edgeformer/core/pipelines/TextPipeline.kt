package org.edgeformer.core.pipelines

import org.edgeformer.core.Bundle
import org.edgeformer.core.Classification
import org.edgeformer.core.Score
import org.edgeformer.core.Tensor
import org.edgeformer.core.TextPreprocessing
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.RawText
import org.edgeformer.core.preprocess.TextEncoder

/** What text pipelines share: the encoder, and what one input looks like. */
abstract class TextPipeline<Answer>(bundle: Bundle, engine: Engine) : ProgramPipeline<RawText, Answer>(bundle, engine) {
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

/** Scores every label of the bundle for a text. */
class TextClassifier(bundle: Bundle, engine: Engine) : TextPipeline<ClassificationResult>(bundle, engine) {
    /** Answers one text. */
    fun run(text: String): ClassificationResult = run(RawText.Single(text))

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        classify(outputs, bundle.manifest.postprocessing as Classification, prepared.truncated)

    override fun withStatistics(answer: ClassificationResult, statistics: Statistics) =
        answer.copy(statistics = statistics)
}

/** Gives a text's score, or a pair's. */
class TextScorer(bundle: Bundle, engine: Engine) : TextPipeline<ScoreResult>(bundle, engine) {
    /** Answers one text. */
    fun run(text: String): ScoreResult = run(RawText.Single(text))

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        score(outputs, bundle.manifest.postprocessing as Score, prepared.truncated)

    override fun withStatistics(answer: ScoreResult, statistics: Statistics) = answer.copy(statistics = statistics)
}

/** Gives a text's embedding. */
class TextEmbedder(bundle: Bundle, engine: Engine) : TextPipeline<EmbeddingResult>(bundle, engine) {
    /** Answers one text. */
    fun run(text: String): EmbeddingResult = run(RawText.Single(text))

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) = embed(outputs, prepared.truncated)

    override fun withStatistics(answer: EmbeddingResult, statistics: Statistics) =
        EmbeddingResult(answer.vector, answer.truncated, statistics)
}
