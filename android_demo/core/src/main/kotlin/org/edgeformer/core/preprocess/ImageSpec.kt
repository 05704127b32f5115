package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.Preprocessing

/** A separable resampling filter: "bicubic" is Keys' cubic with a = -1/2, "bilinear" the triangle. */
enum class Interpolation { BICUBIC, BILINEAR }

/**
 * How an image becomes as large as the model wants it: the short side fits and the center is cropped, or both sides
 * fit. A center between two pixels is that at the even number, or the first one ([CENTER_FLOOR]).
 */
enum class Crop { CENTER, CENTER_FLOOR, SQUASH }

/**
 * What happens to an image before the model: resize, crop, scale to 0..1, normalise. Sizes are in pixels.
 *
 * @property height rows of the model's input.
 * @property width columns of the model's input.
 * @property resizeShortSide what the short side becomes ([Crop.CENTER], [Crop.CENTER_FLOOR]), or both sides ([Crop.SQUASH]).
 * @property mean per channel, of values scaled to 0..1.
 * @property std per channel, of values scaled to 0..1.
 */
data class ImagePreprocessing(
    val height: Int,
    val width: Int,
    val resizeShortSide: Int,
    val interpolation: Interpolation,
    val crop: Crop,
    val mean: List<Double>,
    val std: List<Double>,
) : Preprocessing {
    override val kind: String get() = "image"

    init {
        if (resizeShortSide < maxOf(height, width)) {
            throw BundleError(
                "image preprocessing: expected height, width <= resize_short_side, found $height, $width and " +
                    "$resizeShortSide",
            )
        }
    }

    internal companion object {
        fun read(fields: Fields): ImagePreprocessing {
            fields.choice("channels", listOf("RGB"))
            fields.choice("layout", listOf("NCHW"))
            return ImagePreprocessing(
                height = fields.int("height", 1..4096L),
                width = fields.int("width", 1..4096L),
                resizeShortSide = fields.int("resize_short_side", 1..8192L),
                interpolation = if (fields.choice("interpolation", listOf("bicubic", "bilinear")) == "bicubic") {
                    Interpolation.BICUBIC
                } else {
                    Interpolation.BILINEAR
                },
                crop = when (fields.choice("crop", listOf("center", "center-floor", "squash"))) {
                    "center" -> Crop.CENTER
                    "center-floor" -> Crop.CENTER_FLOOR
                    else -> Crop.SQUASH
                },
                mean = fields.numbers("mean", 3, -1000.0, 1000.0),
                std = fields.numbers("std", 3, 0.0001, 1000.0),
            )
        }
    }
}
