package org.edgeformer.core.preprocess

import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError

/** Of a source image, and of it resized: above the 108 million of today's phones. */
const val MAX_PIXELS = 128_000_000L

/**
 * Upright, opaque pixels as a person sees them. The platform decodes files, applies their EXIF orientation and lays
 * transparency over white; colour profiles are not applied.
 *
 * @property data red, green and blue of each pixel, row by row.
 */
class RgbImage(val width: Int, val height: Int, val data: ByteArray) {
    init {
        checkPixels(width, height, "the image")
        if (data.size != 3 * width * height) {
            throw InputError("expected ${3 * width * height} bytes for $width x $height pixels, found ${data.size}")
        }
    }
}

/** Decodes a file of an image, JPEG or PNG at least: the platform's part of preprocessing. */
fun interface ImageDecoder {
    /** @throws InputError not an image, corrupted, animated or too large. */
    fun decode(data: ByteArray): RgbImage
}

/**
 * Turns images into a model's input as timm's evaluation transform does: resize, crop the center, scale to 0..1,
 * normalise. Resizing is Pillow's `Image.resize` bit for bit. Calls from several threads are safe.
 */
class ImageEncoder(private val spec: ImagePreprocessing) {
    private val table = normalisationTable(spec)

    /** The model's input (1, 3, height, width), normalised. */
    fun encode(image: RgbImage): FloatTensor = toInput(levels(image), table, spec)

    /** The 8-bit values before the last step, channel by channel: 3 * height * width. */
    fun levels(image: RgbImage): ByteArray {
        val (width, height) = resizedSize(image)
        checkPixels(width, height, "an image of ${image.width} x ${image.height} pixels, resized for this model,")
        val left = before(width - spec.width)
        val top = before(height - spec.height)
        // Only what the crop keeps is computed: the middle columns, and the rows that the middle rows are made of.
        val columns = weights(image.width, width, left, spec.width, spec.interpolation)
        val rows = weights(image.height, height, top, spec.height, spec.interpolation)
        val first = rows.minOf { it.first }
        val wide = alongRows(image, columns, first, rows.maxOf { it.first + it.values.size })
        return alongColumns(wide, rows, first)
    }

    /** Of the pixels that are cropped, those at the left or the top. */
    private fun before(cropped: Int): Int = if (spec.crop == Crop.CENTER_FLOOR) cropped / 2 else halfToEven(cropped)

    private fun resizedSize(image: RgbImage): Pair<Int, Int> {
        val side = spec.resizeShortSide
        return when {
            spec.crop == Crop.SQUASH -> side to side
            image.width <= image.height -> side to (side.toLong() * image.height / image.width).toInt()
            else -> (side.toLong() * image.width / image.height).toInt() to side
        }
    }

    /** (rows `first` to before `end`, spec.width, 3). */
    private fun alongRows(image: RgbImage, columns: List<Weights>, first: Int, end: Int): ByteArray {
        val result = ByteArray((end - first) * spec.width * 3)
        for (y in first until end) {
            columns.forEachIndexed { x, weights ->
                for (channel in 0 until 3) {
                    val at = 3 * (y * image.width + weights.first) + channel
                    result[3 * ((y - first) * spec.width + x) + channel] = weights.sum(image.data, at, 3)
                }
            }
        }
        return result
    }

    /** (3, spec.height, spec.width) from rows that begin with row `first` of the image. */
    private fun alongColumns(wide: ByteArray, rows: List<Weights>, first: Int): ByteArray {
        val result = ByteArray(3 * spec.height * spec.width)
        val stride = 3 * spec.width
        rows.forEachIndexed { y, weights ->
            for (x in 0 until spec.width) {
                for (channel in 0 until 3) {
                    val at = (weights.first - first) * stride + 3 * x + channel
                    result[(channel * spec.height + y) * spec.width + x] = weights.sum(wide, at, stride)
                }
            }
        }
        return result
    }
}

/** Half of a number, halves to the even integer, as the reference's crop rounds. */
internal fun halfToEven(number: Int): Int = Math.rint(number / 2.0).toInt()

private fun checkPixels(width: Int, height: Int, what: String) {
    if (width < 1 || height < 1) throw InputError("$what is empty: $width x $height pixels")
    if (width.toLong() * height > MAX_PIXELS) {
        val limit = "${MAX_PIXELS / 1_000_000} million"
        throw InputError("$what has $width x $height pixels, above the limit of $limit: resize it first")
    }
}
