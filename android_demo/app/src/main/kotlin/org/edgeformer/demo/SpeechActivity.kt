package org.edgeformer.demo

import android.Manifest.permission.RECORD_AUDIO
import android.content.pm.PackageManager
import android.view.WindowManager
import android.widget.Button
import android.widget.TextView
import org.edgeformer.core.Bundle
import org.edgeformer.core.InputError
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.StreamUpdate
import org.edgeformer.core.pipelines.Transcriber
import java.io.IOException

/** Transcribes the microphone: a guess while somebody speaks, and what stays after each pause. */
class SpeechActivity : ModelActivity<Transcriber>(R.layout.speech, Task.SPEECH_RECOGNITION) {
    private lateinit var answer: TextView
    private lateinit var record: Button
    private val said = StringBuilder()

    /** Whether the microphone is on; the thread that listens reads it. */
    @Volatile
    private var recording = false

    override fun bindViews() {
        answer = findViewById(R.id.answer) as TextView
        record = findViewById(R.id.record) as Button
        record.setOnClickListener { if (recording) stop() else askForMicrophone() }
    }

    override fun openPipeline(bundle: Bundle, engine: Engine) = Transcriber(bundle, engine)

    /** While it records, the button stays on: it stops. */
    override fun setReady(ready: Boolean) {
        record.isEnabled = ready || recording
    }

    override fun onPause() {
        stop()
        super.onPause()
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<String>, grantResults: IntArray) {
        if (grantResults.singleOrNull() == PackageManager.PERMISSION_GRANTED) start()
        else show(getString(R.string.microphone_refused))
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
        } catch (_: IOException) {
            tasks.post(::stop)
            throw InputError(getString(R.string.microphone_failed))
        }
        var samples = 0L
        var worked = 0L
        microphone.use {
            val stream = transcriber.openStream()
            while (true) {
                val block = it.next() ?: break
                if (!recording || tasks.cancelled) it.stop()
                samples += block.size
                val begin = System.nanoTime()
                tell(stream.feed(block), samples.toDouble() / transcriber.sampleRate)
                worked += System.nanoTime() - begin
                if (tasks.cancelled) return 0.0 to 0.0
            }
            val begin = System.nanoTime()
            tell(stream.finish(), samples.toDouble() / transcriber.sampleRate)
            worked += System.nanoTime() - begin
        }
        return samples.toDouble() / transcriber.sampleRate to worked / 1e9
    }

    private fun tell(updates: List<StreamUpdate>, seconds: Double) = tasks.post {
        for (update in updates) {
            update.final.forEach { said.append(it.text).append(' ') }
            answer.text = (said.toString() + update.partial).trim()
        }
        if (recording) show(getString(R.string.speech_listening, seconds))
    }
}
