package org.edgeformer.core.pipelines

import org.edgeformer.core.Classification
import org.edgeformer.core.IMAGE_INPUT
import org.edgeformer.core.IMAGE_PROGRAM
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Tensor
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.ImageEncoder
import org.edgeformer.core.preprocess.ImagePreprocessing
import org.edgeformer.core.preprocess.RgbImage

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
