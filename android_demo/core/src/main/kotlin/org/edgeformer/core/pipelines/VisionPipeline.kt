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

/**
 * Scores every label of the bundle for an image.
 *
 * @param decoder the platform's, for images that come as files: those of the recorded vectors.
 */
class ImageClassifier(bundle: ModelBundle, engine: Engine, private val decoder: ImageDecoder) :
    ProgramPipeline<RgbImage, ClassificationResult>(bundle, engine) {
    private val encoder = ImageEncoder(bundle.manifest.preprocessing as ImagePreprocessing)

    override fun prepare(raw: RgbImage) =
        Prepared(IMAGE_PROGRAM, mapOf(IMAGE_INPUT to encoder.encode(raw)), truncated = false)

    override fun answer(outputs: Map<String, Tensor>, prepared: Prepared) =
        classify(outputs, bundle.manifest.postprocessing as Classification, prepared.truncated)

    /** {"image"}: the name of a file of the bundle. */
    override fun rawFromJson(stored: Map<String, Any?>): RgbImage =
        decoder.decode(bundle.readBytes(stored["image"] as String))

    override fun withStatistics(answer: ClassificationResult, statistics: Statistics) =
        answer.copy(statistics = statistics)
}
