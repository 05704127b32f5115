package org.edgeformer.demo

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import java.io.File
import java.io.IOException

/** Reads photos as a person sees them: upright, over white where they are transparent. */
object Photo {
    /**
     * A photo of at most [MAX_PIXELS] pixels; larger ones are halved while they are read until they fit in memory.
     *
     * @param scratch a folder for a copy of the photo, which is removed: the system's EXIF reader wants a file.
     * @throws IOException it cannot be read, or is no picture.
     */
    fun read(resolver: ContentResolver, uri: Uri, scratch: File): Bitmap {
        val copy = File.createTempFile("photo", null, scratch)
        try {
            val stream = resolver.openInputStream(uri) ?: throw IOException("no content at $uri")
            stream.use { input -> copy.outputStream().use { input.copyTo(it) } }
            return turned(overWhite(decode(copy)), ExifInterface(copy.path))
        } finally {
            copy.delete()
        }
    }

    private fun decode(file: File): Bitmap {
        val options = BitmapFactory.Options()
        options.inJustDecodeBounds = true
        BitmapFactory.decodeFile(file.path, options)
        options.inJustDecodeBounds = false
        options.inPreferredConfig = Bitmap.Config.ARGB_8888
        options.inSampleSize = 1
        while (options.outWidth.toLong() * options.outHeight / options.inSampleSize / options.inSampleSize > MAX_PIXELS) {
            options.inSampleSize *= 2
        }
        return BitmapFactory.decodeFile(file.path, options) ?: throw IOException("no picture")
    }

    private fun overWhite(bitmap: Bitmap): Bitmap {
        if (!bitmap.hasAlpha()) return bitmap
        val flat = Bitmap.createBitmap(bitmap.width, bitmap.height, Bitmap.Config.ARGB_8888)
        val canvas = Canvas(flat)
        canvas.drawColor(Color.WHITE)
        canvas.drawBitmap(bitmap, 0f, 0f, null)
        return flat
    }

    private fun turned(bitmap: Bitmap, exif: ExifInterface): Bitmap {
        val matrix = Matrix()
        when (exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)) {
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
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, matrix, true)
    }

    private const val MAX_PIXELS = 16L shl 20
}
