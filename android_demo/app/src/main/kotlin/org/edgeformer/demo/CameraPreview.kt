package org.edgeformer.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Matrix
import android.graphics.RectF
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.os.Handler
import android.util.Size
import android.view.Surface
import android.view.TextureView
import android.view.WindowManager
import java.io.Closeable

/**
 * Shows what the back camera sees in a [TextureView], from which frames are taken as bitmaps.
 *
 * Made and closed on the main thread, with the permission for the camera.
 *
 * @param failed is called on the main thread when the camera is taken, or lost.
 */
class CameraPreview(
    private val context: Context,
    private val view: TextureView,
    private val failed: () -> Unit,
) : Closeable {
    private val manager = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
    private val main = Handler(context.mainLooper)
    private var camera: CameraDevice? = null
    private var closed = false

    private val viewEvents =
        object : TextureView.SurfaceTextureListener {
            override fun onSurfaceTextureAvailable(texture: SurfaceTexture, width: Int, height: Int) = openCamera()

            override fun onSurfaceTextureSizeChanged(texture: SurfaceTexture, width: Int, height: Int) = turnUpright()

            override fun onSurfaceTextureDestroyed(texture: SurfaceTexture) = true

            override fun onSurfaceTextureUpdated(texture: SurfaceTexture) = Unit
        }

    private val cameraEvents =
        object : CameraDevice.StateCallback() {
            override fun onOpened(device: CameraDevice) {
                camera = device
                if (closed) device.close() else startPreview(device)
            }

            override fun onDisconnected(device: CameraDevice) = fail()

            override fun onError(device: CameraDevice, error: Int) = fail()
        }

    /** The size of the camera's picture, in its own orientation. */
    private var pictureSize = Size(0, 0)
    private val shortSide get() = minOf(pictureSize.width, pictureSize.height)
    private val longSide get() = maxOf(pictureSize.width, pictureSize.height)

    /** Start, now or as soon as the view is on the screen. */
    fun start() {
        view.surfaceTextureListener = viewEvents
        if (view.isAvailable) openCamera()
    }

    /** What the camera sees now, upright; null before it sees anything. */
    fun frame(): Bitmap? {
        if (camera == null || !view.isAvailable) return null
        // The view gives its picture as it is in the natural orientation, whatever `turnUpright` does on the screen.
        val picture = view.getBitmap(shortSide, longSide) ?: return null
        val matrix = Matrix().apply { postRotate(-90f * quarterTurns()) }
        return Bitmap.createBitmap(picture, 0, 0, picture.width, picture.height, matrix, true)
    }

    /** Stop, and give the camera back. */
    override fun close() {
        closed = true
        view.surfaceTextureListener = null
        camera?.close()
        camera = null
    }

    private fun openCamera() {
        try {
            val id = manager.cameraIdList.firstOrNull(::looksBack) ?: manager.cameraIdList.firstOrNull()
            if (id == null) return fail()
            val features = manager.getCameraCharacteristics(id)
            val streams = features.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
            val sizes = streams?.getOutputSizes(SurfaceTexture::class.java).orEmpty()
            // A model sees a few hundred pixels: the smallest picture that has as many is enough.
            pictureSize =
                sizes.filter { minOf(it.width, it.height) >= PREVIEW_SIDE }.minByOrNull { it.width * it.height }
                    ?: return fail()
            turnUpright()
            manager.openCamera(id, cameraEvents, main)
        } catch (_: CameraAccessException) {
            fail()
        } catch (_: SecurityException) {
            fail()
        }
    }

    private fun looksBack(id: String): Boolean =
        manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING) ==
            CameraCharacteristics.LENS_FACING_BACK

    private fun startPreview(device: CameraDevice) {
        val texture = view.surfaceTexture ?: return fail()
        texture.setDefaultBufferSize(pictureSize.width, pictureSize.height)
        val surface = Surface(texture)
        val sessionEvents =
            object : CameraCaptureSession.StateCallback() {
                override fun onConfigured(session: CameraCaptureSession) {
                    if (closed) return
                    try {
                        val request = device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                        request.addTarget(surface)
                        session.setRepeatingRequest(request.build(), null, main)
                    } catch (_: CameraAccessException) {
                        fail()
                    } catch (_: IllegalStateException) {
                        fail()
                    }
                }

                override fun onConfigureFailed(session: CameraCaptureSession) = fail()
            }
        try {
            @Suppress("DEPRECATION") // its successor needs API 28
            device.createCaptureSession(listOf(surface), sessionEvents, main)
        } catch (_: CameraAccessException) {
            fail()
        }
    }

    /**
     * The picture fills the view without being distorted. The system turns it for a display in its natural orientation;
     * what the display is turned beyond that is done here.
     */
    private fun turnUpright() {
        if (pictureSize.width == 0 || view.width == 0) return
        val quarters = quarterTurns()
        val long = longSide.toFloat()
        val short = shortSide.toFloat()
        val width = view.width.toFloat()
        val height = view.height.toFloat()
        val frame = RectF(0f, 0f, width, height)
        val sideways = quarters % 2 == 1
        // Phones stand upright by nature, and their sensors lie: the picture is `short` wide before the turn.
        val scale = if (sideways) maxOf(width / long, height / short) else maxOf(width / short, height / long)
        val picture = RectF(0f, 0f, short * scale, long * scale)
        picture.offset(frame.centerX() - picture.centerX(), frame.centerY() - picture.centerY())
        val matrix = Matrix()
        matrix.setRectToRect(frame, picture, Matrix.ScaleToFit.FILL)
        matrix.postRotate(-90f * quarters, frame.centerX(), frame.centerY())
        view.setTransform(matrix)
    }

    /** How far the display is turned from its natural orientation: Surface.ROTATION_0, 90, 180, 270 are 0, 1, 2, 3. */
    @Suppress("DEPRECATION") // its successor needs API 30
    private fun quarterTurns(): Int =
        (context.getSystemService(Context.WINDOW_SERVICE) as WindowManager).defaultDisplay.rotation

    private fun fail() {
        if (closed) return
        close()
        failed()
    }

    private companion object {
        const val PREVIEW_SIDE = 480
    }
}
