package org.edgeformer.core.pipelines

import org.edgeformer.core.Classification
import org.edgeformer.core.IMAGE_INPUT
import org.edgeformer.core.IMAGE_PROGRAM
import org.edgeformer.core.ImageTextPreprocessing
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Similarity
import org.edgeformer.core.Tensor
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.ImageEncoder
import org.edgeformer.core.preprocess.ImagePreprocessing
import org.edgeformer.core.preprocess.RawText
import org.edgeformer.core.preprocess.RgbImage
import org.edgeformer.core.preprocess.TextEncoder

/** An image's answer; [decoder] is the platform's, for images that come as files: those of the recorded vectors. */
abstract class ImagePipeline<Answer>(bundle: ModelBundle, engine: Engine, private val decoder: ImageDecoder) :
    ProgramPipeline<RgbImage, Answer>(bundle, engine) {
    private val encoder = ImageEncoder(bundle.manifest.preprocessing as ImagePreprocessing)

    override fun prepare(raw: RgbImage) =
        Prepared(IMAGE_PROGRAM, mapOf(IMAGE_INPUT to encoder.encode(raw)), truncated = false)

    /** {"image"}: the name of a file of the bundle. */
    override fun rawFromJson(stored: Map<String, Any?>): RgbImage =
        decoder.decode(bundle.readBytes(stored["image"] as String))
}

/** Scores every label of the bundle for an image. */
class ImageClassifier(bundle: ModelBundle, engine: Engine, decoder: ImageDecoder) :
    ImagePipeline<ClassificationResult>(bundle, engine, decoder) {
    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        classify(outputs, bundle.manifest.postprocessing as Classification, prepared.truncated)

    override fun withStatistics(answer: ClassificationResult, statistics: Statistics) =
        answer.copy(statistics = statistics)
}

/** Gives an image's embedding. */
class ImageEmbedder(bundle: ModelBundle, engine: Engine, decoder: ImageDecoder) :
    ImagePipeline<EmbeddingResult>(bundle, engine, decoder) {
    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) = embed(outputs, prepared.truncated)

    override fun withStatistics(answer: EmbeddingResult, statistics: Statistics) =
        EmbeddingResult(answer.vector, answer.truncated, statistics)
}

/** Of labels that a call names for an image where the call says nothing else: that of transformers' pipeline. */
const val PHOTO_TEMPLATE = "This is a photo of {}."

/** Embeddings of texts that a pipeline keeps; the one that was asked for the longest ago makes room. */
private const val KEPT_TEXTS = 4096

/** What is embedded, or compared. */
sealed class ImageOrText {
    /** An image, and the texts that it is compared with, each with the label that it stands for, if it is one's. */
    class Photo(val image: RgbImage, val texts: List<Pair<String, String?>> = emptyList()) : ImageOrText()

    /** A text. */
    class Words(val text: String) : ImageOrText()
}

/**
 * Embeds images and texts into one space, and compares them there. A text is embedded once, and kept for later calls.
 */
class ImageTextComparer(bundle: ModelBundle, engine: Engine, private val decoder: ImageDecoder) :
    ProgramPipeline<ImageOrText, Measured>(bundle, KeepingEngine(engine)) {
    private val spec = bundle.manifest.preprocessing as ImageTextPreprocessing
    private val head = bundle.manifest.postprocessing as Similarity
    private val images = ImageEncoder(spec.image)
    private val texts = TextEncoder(
        spec.text,
        spec.text.tokenizer?.let(bundle::readBytes),
        bundle.manifest.programs.filter { it.name != IMAGE_PROGRAM },
    )

    /** The embedding of an image, of norm 1. */
    fun embed(image: RgbImage): EmbeddingResult = run(ImageOrText.Photo(image)) as EmbeddingResult

    /** The embedding of a text, of norm 1. */
    fun embed(text: String): EmbeddingResult = run(ImageOrText.Words(text)) as EmbeddingResult

    /** Scores labels for an image, best first; [template] is a sentence in which each label stands for {}. */
    fun classify(image: RgbImage, labels: List<String>, template: String = PHOTO_TEMPLATE): ClassificationResult =
        run(ImageOrText.Photo(image, sentences(ZeroShotOptions(labels, template)))) as ClassificationResult

    /** The cosine of an image and a text. */
    fun score(image: RgbImage, query: String): ScoreResult =
        run(ImageOrText.Photo(image, listOf(query to null))) as ScoreResult

    /** Of options, which have checked them. */
    private fun sentences(options: ZeroShotOptions): List<Pair<String, String?>> =
        options.labels.map { options.template.replace("{}", it) to it }

    override fun prepare(raw: ImageOrText): Prepared = when (raw) {
        is ImageOrText.Photo ->
            Prepared(IMAGE_PROGRAM, mapOf(IMAGE_INPUT to images.encode(raw.image)), truncated = false)
        is ImageOrText.Words ->
            texts.encode(RawText.Single(raw.text)).let { Prepared(it.program, it.inputs, it.truncated) }
    }

    /** The image, and each text that it is compared with. */
    override fun windows(raw: ImageOrText): List<Prepared> {
        val compared = (raw as? ImageOrText.Photo)?.texts.orEmpty().map { (text, label) ->
            val encoded = prepare(ImageOrText.Words(text))
            Prepared(encoded.program, encoded.inputs, encoded.truncated, source = label)
        }
        return listOf(prepare(raw)) + compared
    }

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared): Measured =
        embed(outputs, prepared.truncated)

    override fun answerWindows(outputs: List<Map<String, Tensor>>, windows: List<Prepared>): Measured {
        if (outputs.size == 1) return answer(outputs[0], windows[0])
        val vectors = outputs.map(::onlyRow)
        val cosines = vectors.drop(1).map { text -> text.indices.sumOf { text[it].toDouble() * vectors[0][it] } }
        val truncated = windows.any { it.truncated }
        val labels = windows.drop(1).mapNotNull { it.source }
        if (labels.size < cosines.size) return ScoreResult(cosines.single(), truncated)
        val logits = FloatArray(cosines.size) { (cosines[it] * head.scale + head.bias).toFloat() }
        return classify(logits, Classification(labels, head.activation), truncated)
    }

    /** {"image", "labels"?}, the image as the name of a file of the bundle; or {"text"}. */
    override fun rawFromJson(stored: Map<String, Any?>): ImageOrText {
        val text = stored["text"] as String?
        if (text != null) return ImageOrText.Words(text)
        val image = decoder.decode(bundle.readBytes(stored["image"] as String))
        val labels = (stored["labels"] as List<*>?)?.map { it as String } ?: return ImageOrText.Photo(image)
        return ImageOrText.Photo(image, sentences(ZeroShotOptions(labels, PHOTO_TEMPLATE)))
    }

    override fun withStatistics(answer: Measured, statistics: Statistics): Measured = when (answer) {
        is ClassificationResult -> answer.copy(statistics = statistics)
        is ScoreResult -> answer.copy(statistics = statistics)
        else -> (answer as EmbeddingResult).let { EmbeddingResult(it.vector, it.truncated, statistics) }
    }
}

/** An engine that runs the programs of texts once for each input. */
private class KeepingEngine(private val inner: Engine) : Engine by inner {
    private val kept = object : LinkedHashMap<Pair<String, List<Int>>, Map<String, Tensor>>(16, 0.75f, true) {
        override fun removeEldestEntry(eldest: Map.Entry<Pair<String, List<Int>>, Map<String, Tensor>>) =
            size > KEPT_TEXTS
    }

    override fun run(program: String, inputs: Map<String, Tensor>): Map<String, Tensor> {
        if (program == IMAGE_PROGRAM) return inner.run(program, inputs)
        val key = program to inputs.values.flatMap { (it as IntTensor).toArray().asList() }
        synchronized(kept) { kept[key] }?.let { return it }
        return inner.run(program, inputs).also { synchronized(kept) { kept[key] = it } }
    }
}
