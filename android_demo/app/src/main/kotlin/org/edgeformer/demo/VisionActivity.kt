package org.edgeformer.demo

import android.Manifest.permission.CAMERA
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.view.TextureView
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import java.io.IOException
import org.edgeformer.android.Photo
import org.edgeformer.android.toRgb
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.ClassificationResult
import org.edgeformer.core.pipelines.ImageClassifier

/** Classifies a photo of the gallery, or what the camera sees, frame by frame. */
class VisionActivity : ModelActivity<ImageClassifier>(R.layout.vision, setOf(Task.IMAGE_CLASSIFICATION)) {
    private lateinit var answer: TextView
    private lateinit var camera: Button
    private lateinit var gallery: View
    private lateinit var photo: ImageView
    private lateinit var view: TextureView
    private val photos by lazy { Photo(cacheDir) }
    private var preview: CameraPreview? = null

    override fun bindViews() {
        answer = findViewById(R.id.answer) as TextView
        camera = findViewById(R.id.camera) as Button
        gallery = findViewById(R.id.gallery) as View
        photo = findViewById(R.id.photo) as ImageView
        view = findViewById(R.id.preview) as TextureView
        gallery.setOnClickListener { choosePhoto() }
        camera.setOnClickListener { if (preview == null) askForCamera() else stopCamera() }
    }

    override fun openPipeline(bundle: ModelBundle, engine: Engine) = ImageClassifier(bundle, engine, photos)

    /** While the camera runs, its button stays on: it stops it. */
    override fun setReady(ready: Boolean) {
        gallery.isEnabled = ready && preview == null
        camera.isEnabled = ready || preview != null
    }

    override fun onPause() {
        stopCamera()
        super.onPause()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val uri = data?.data
        if (requestCode == GALLERY && resultCode == Activity.RESULT_OK && uri != null) classifyPhoto(uri)
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<String>, grantResults: IntArray) {
        if (grantResults.singleOrNull() == PackageManager.PERMISSION_GRANTED) startCamera()
        else show(getString(R.string.camera_refused))
    }

    private fun choosePhoto() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        startActivityForResult(intent, GALLERY)
    }

    private fun classifyPhoto(uri: Uri) = use(
        { classifier ->
            val shown = photos.read(readContent(uri))
            Triple(shown, classifier.run(toRgb(shown)), classifier.engine.executedBy)
        },
        { (shown, result, executedBy) ->
            photo.setImageBitmap(shown)
            showAnswer(result, executedBy)
        },
    )

    private fun readContent(uri: Uri): ByteArray = try {
        contentResolver.openInputStream(uri)?.use { it.readBytes() }
    } catch (_: IOException) {
        null
    } ?: throw InputError(getString(R.string.vision_unreadable))

    private fun askForCamera() {
        if (checkSelfPermission(CAMERA) == PackageManager.PERMISSION_GRANTED) startCamera()
        else requestPermissions(arrayOf(CAMERA), 0)
    }

    private fun startCamera() {
        if (!packageManager.hasSystemFeature(PackageManager.FEATURE_CAMERA_ANY)) {
            return show(getString(R.string.camera_none))
        }
        view.visibility = View.VISIBLE
        photo.visibility = View.GONE
        camera.setText(R.string.vision_camera_stop)
        answer.accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_NONE // it changes faster than anybody speaks
        val started = CameraPreview(this, view) {
            stopCamera()
            show(getString(R.string.camera_failed))
        }
        preview = started
        started.start()
        nextFrame(started)
    }

    private fun stopCamera() {
        preview?.close() ?: return
        preview = null
        view.visibility = View.GONE
        photo.visibility = View.VISIBLE
        camera.setText(R.string.vision_camera)
        answer.accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
        setReady(true)
    }

    /** Classifies what the camera sees, frame by frame, as fast as the model answers, until it is stopped. */
    private fun nextFrame(running: CameraPreview) {
        if (preview !== running) return
        val frame = running.frame()
        if (frame == null) {
            view.postDelayed({ nextFrame(running) }, RETRY_MS)
            return
        }
        useQuietly(
            { it.run(toRgb(frame)) to it.engine.executedBy },
            { (result, executedBy) ->
                if (preview === running) showAnswer(result, executedBy)
                view.postDelayed({ nextFrame(running) }, PAUSE_MS)
            },
            { error ->
                stopCamera()
                showFailure(error)
            },
        )
    }

    private fun showAnswer(result: ClassificationResult, executedBy: String) {
        answer.text = describe(result)
        show(describeCost(result, executedBy))
    }

    private companion object {
        const val GALLERY = 1
        const val RETRY_MS = 100L

        /** Between frames, so that the phone stays cool and the screen can follow. */
        const val PAUSE_MS = 50L
    }
}
