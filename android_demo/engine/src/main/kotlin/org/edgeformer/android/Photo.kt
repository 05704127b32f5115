package org.edgeformer.android

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Matrix
import android.media.ExifInterface
import org.edgeformer.core.InputError
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.RgbImage
import java.io.File

/** What is decoded: 64 MiB as a bitmap. */
private const val MAX_PIXELS = 16L shl 20

/** What a file may state: above today's phones, and refused before anything is decoded. */
private const val MAX_STATED_PIXELS = 128_000_000L

/**
 * Android's decoders of images, which give what a person sees: upright, over white where the image is transparent.
 *
 * Images of more than 16 million pixels are halved while they are decoded until they have fewer, and at most two bitmaps
 * are alive at once: 128 MiB, whatever the file states.
 *
 * @param scratch a private folder: the system's reader of EXIF data wants a file.
 */
class Photo(private val scratch: File) : ImageDecoder {
    override fun decode(data: ByteArray): RgbImage = toRgb(read(data))

    /** The picture itself, to be shown. */
    fun read(data: ByteArray): Bitmap = turned(overWhite(decodeBitmap(data)), orientation(data))

    private fun decodeBitmap(data: ByteArray): Bitmap {
        val options = BitmapFactory.Options()
        options.inJustDecodeBounds = true
        BitmapFactory.decodeByteArray(data, 0, data.size, options)
        options.inJustDecodeBounds = false
        options.inPreferredConfig = Bitmap.Config.ARGB_8888
        options.inSampleSize = 1
        val pixels = options.outWidth.toLong() * options.outHeight
        if (pixels > MAX_STATED_PIXELS) {
            throw InputError("expected an image of at most $MAX_STATED_PIXELS pixels, found $pixels: make it smaller")
        }
        while (pixels / options.inSampleSize / options.inSampleSize > MAX_PIXELS) options.inSampleSize *= 2
        return BitmapFactory.decodeByteArray(data, 0, data.size, options)
            ?: throw InputError("expected an image that Android can decode, such as JPEG or PNG: choose another one")
    }

    private fun overWhite(bitmap: Bitmap): Bitmap {
        if (!bitmap.hasAlpha()) return bitmap
        val flat = Bitmap.createBitmap(bitmap.width, bitmap.height, Bitmap.Config.ARGB_8888)
        val canvas = Canvas(flat)
        canvas.drawColor(Color.WHITE)
        canvas.drawBitmap(bitmap, 0f, 0f, null)
        bitmap.recycle()
        return flat
    }

    private fun orientation(data: ByteArray): Int {
        val copy = File.createTempFile("photo", null, scratch)
        try {
            copy.writeBytes(data)
            return ExifInterface(copy.path)
                .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        } finally {
            copy.delete()
        }
    }

    private fun turned(bitmap: Bitmap, orientation: Int): Bitmap {
        val matrix = Matrix()
        when (orientation) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> matrix.postScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_180 -> matrix.postRotate(180f)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> matrix.postScale(1f, -1f)
            ExifInterface.ORIENTATION_TRANSPOSE -> {
                matrix.postRotate(90f)
                matrix.postScale(-1f, 1f)
            }
            ExifInterface.ORIENTATION_ROTATE_90 -> matrix.postRotate(90f)
            ExifInterface.ORIENTATION_TRANSVERSE -> {
                matrix.postRotate(-90f)
                matrix.postScale(-1f, 1f)
            }
            ExifInterface.ORIENTATION_ROTATE_270 -> matrix.postRotate(-90f)
            else -> return bitmap
        }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, matrix, true).also { bitmap.recycle() }
    }
}

/** The pixels of an opaque bitmap. */
fun toRgb(bitmap: Bitmap): RgbImage {
    val width = bitmap.width
    val row = IntArray(width)
    val data = ByteArray(3 * width * bitmap.height)
    var next = 0
    for (y in 0 until bitmap.height) {
        bitmap.getPixels(row, 0, width, 0, y, width, 1)
        for (pixel in row) {
            data[next++] = Color.red(pixel).toByte()
            data[next++] = Color.green(pixel).toByte()
            data[next++] = Color.blue(pixel).toByte()
        }
    }
    return RgbImage(width, bitmap.height, data)
}
