package org.edgeformer.demo

import android.Manifest.permission.RECORD_AUDIO
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.view.View
import android.view.WindowManager
import android.widget.Button
import android.widget.TextView
import org.edgeformer.android.Microphone
import org.edgeformer.android.openRecording
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.StreamUpdate
import org.edgeformer.core.pipelines.Transcriber

/** Transcribes a file, or the microphone: a guess while somebody speaks, and what stays after each pause. */
class SpeechActivity : ModelActivity<Transcriber>(R.layout.speech, setOf(Task.SPEECH_RECOGNITION)) {
    private lateinit var answer: TextView
    private lateinit var record: Button
    private lateinit var file: View
    private val said = StringBuilder()

    /** Whether the microphone is on; the thread that listens reads it. */
    @Volatile
    private var recording = false

    override fun bindViews() {
        answer = findViewById(R.id.answer) as TextView
        record = findViewById(R.id.record) as Button
        file = findViewById(R.id.file) as View
        file.setOnClickListener { chooseFile() }
        record.setOnClickListener { if (recording) stop() else askForMicrophone() }
    }

    override fun openPipeline(bundle: ModelBundle, engine: Engine) = Transcriber(bundle, engine)

    /** While it records, the button stays on: it stops. */
    override fun setReady(ready: Boolean) {
        record.isEnabled = ready || recording
        file.isEnabled = ready && !recording
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val uri = data?.data
        if (requestCode == FILE && resultCode == Activity.RESULT_OK && uri != null) transcribeFile(uri)
    }

    override fun onPause() {
        stop()
        super.onPause()
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<String>, grantResults: IntArray) {
        if (grantResults.singleOrNull() == PackageManager.PERMISSION_GRANTED) start()
        else show(getString(R.string.microphone_refused))
    }

    private fun chooseFile() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("audio/*")
        startActivityForResult(intent, FILE)
    }

    private fun transcribeFile(uri: Uri) {
        answer.text = ""
        use({ transcriber ->
            openFile(uri, transcriber.sampleRate).use { recording ->
                transcriber.run(recording) { seconds -> tasks.post { show(getString(R.string.speech_heard, seconds)) } }
            }
        }) { transcript ->
            answer.text = transcript.text
            show(getString(R.string.speech_finished, transcript.duration, transcript.statistics.totalMs / 1e3))
        }
    }

    private fun openFile(uri: Uri, sampleRate: Int) = try {
        openRecording(this, uri, sampleRate)
    } catch (_: InputError) {
        throw InputError(getString(R.string.speech_unreadable))
    }

    private fun askForMicrophone() {
        if (checkSelfPermission(RECORD_AUDIO) == PackageManager.PERMISSION_GRANTED) start()
        else requestPermissions(arrayOf(RECORD_AUDIO), 0)
    }

    private fun start() {
        recording = true
        record.setText(R.string.speech_stop)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        said.setLength(0)
        answer.text = ""
        use(::listen) { (audioSeconds, workedSeconds) ->
            show(getString(R.string.speech_finished, audioSeconds, workedSeconds))
        }
    }

    /** The button waits until what was transcribed is transcribed. */
    private fun stop() {
        if (!recording) return
        recording = false
        record.isEnabled = false
        record.setText(R.string.speech_start)
        window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
    }

    /** Transcribes until the button is pressed; seconds of audio, and seconds of work on it. Off the main thread. */
    private fun listen(transcriber: Transcriber): Pair<Double, Double> {
        val microphone = try {
            Microphone(transcriber.sampleRate)
        } catch (_: InputError) {
            tasks.post(::stop)
            throw InputError(getString(R.string.microphone_failed))
        }
        val rate = transcriber.sampleRate.toDouble()
        var samples = 0L
        var worked = 0L
        microphone.use {
            val stream = transcriber.openStream()
            while (true) {
                val block = it.next() ?: break
                if (!recording || tasks.cancelled) it.stop()
                samples += block.size
                val begin = System.nanoTime()
                tell(stream.feed(block), samples / rate, lateSeconds = block.size / rate)
                worked += System.nanoTime() - begin
                if (tasks.cancelled) return 0.0 to 0.0
            }
            val begin = System.nanoTime()
            tell(stream.finish(), samples / rate, lateSeconds = 0.0)
            worked += System.nanoTime() - begin
        }
        return samples / rate to worked / 1e9
    }

    /** Shows what is new. What came in one block had waited as long as it lasts. */
    private fun tell(updates: List<StreamUpdate>, seconds: Double, lateSeconds: Double) = tasks.post {
        for (update in updates) {
            update.final.forEach { said.append(it.text).append(' ') }
            answer.text = (said.toString() + update.partial).trim()
        }
        if (recording) show(status(seconds, lateSeconds))
    }

    private fun status(seconds: Double, lateSeconds: Double) =
        if (lateSeconds < LATE_SECONDS) getString(R.string.speech_listening, seconds)
        else getString(R.string.speech_late, seconds, lateSeconds)

    private companion object {
        const val FILE = 1

        /** From here on the screen says how late the text is. */
        const val LATE_SECONDS = 1.0
    }
}
