package org.edgeformer.demo

import android.os.Debug
import org.edgeformer.core.BundleManifest
import org.edgeformer.core.Case
import org.edgeformer.core.Task
import org.edgeformer.core.Tensor
import org.edgeformer.core.Vectors
import org.edgeformer.core.Verification
import org.edgeformer.core.pipelines.Transcriber
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.readRecorded
import org.edgeformer.core.verify
import org.edgeformer.engine.defaultThreads

/**
 * What was measured of a bundle on this device.
 *
 * @property program which ran; of speech the one that starts.
 * @property sizeBytes of all its files.
 * @property loadMs from opening the bundle, hash checks included, to the engine being ready.
 * @property medianMs of the runs of the workload; [p90Ms] nine of ten took no longer.
 * @property runs how many there were.
 * @property memoryMb what the app's memory (PSS) grew by from before loading to after the runs, in MiB.
 * @property verification the self-test against the recorded vectors.
 */
class Measurement(
    val name: String,
    val manifest: BundleManifest,
    val program: String,
    val sizeBytes: Long,
    val executedBy: String,
    val threads: Int,
    val loadMs: Double,
    val medianMs: Double,
    val p90Ms: Double,
    val runs: Int,
    val memoryMb: Double,
    val verification: Verification,
)

private const val WARM_UP_RUNS = 2
private const val LEAST_RUNS = 5
private const val MOST_RUNS = 100
private const val ENOUGH_NS = 3_000_000_000L
private const val KIB_PER_MIB = 1024.0

/**
 * Loads a bundle, runs its largest recorded input again and again (of speech the recorded audio in the middle, from mel
 * to text), and replays its vectors.
 *
 * @throws org.edgeformer.core.EdgeFormerError the bundle or its engine cannot be used, or there are no vectors.
 */
fun measure(installed: InstalledBundle, decoder: ImageDecoder): Measurement {
    Runtime.getRuntime().gc()
    val memoryBefore = Debug.getPss()
    val begin = System.nanoTime()
    installed.open().use { open ->
        val loaded = System.nanoTime()
        val (program, times, memoryAfter) = workload(open).use { work ->
            repeat(WARM_UP_RUNS) { work.run() }
            Triple(work.program, timesOf(work), Debug.getPss())
        }
        return Measurement(
            name = installed.name,
            manifest = open.bundle.manifest,
            program = program,
            sizeBytes = open.bundle.sizeBytes,
            executedBy = open.engine.executedBy,
            threads = defaultThreads(),
            loadMs = (loaded - begin) / 1e6,
            medianMs = percentile(times, 0.5),
            p90Ms = percentile(times, 0.9),
            runs = times.size,
            memoryMb = (memoryAfter - memoryBefore) / KIB_PER_MIB,
            verification = verify(open.bundle, open.engine, decoder),
        )
    }
}

/** Something to run again and again. */
private class Workload(val program: String, val run: () -> Unit, private val release: () -> Unit = {}) : AutoCloseable {
    override fun close() = release()
}

private fun workload(open: OpenBundle): Workload {
    val cases = Vectors.read(open.bundle).cases
    if (open.bundle.manifest.task != Task.SPEECH_RECOGNITION) {
        val largest = cases.maxByOrNull { case -> case.inputs.values.sumOf(Tensor::size) } ?: cases.first()
        return Workload(largest.program, { open.engine.run(largest.program, largest.inputs) })
    }
    val transcriber = Transcriber(open.bundle, open.engine)
    val middle = cases[cases.size / 2]
    val samples = audioOf(open, middle, transcriber.sampleRate)
    return Workload(middle.program, { transcriber.run(samples) }, transcriber::close)
}

/** What is transcribed of a recording; verification checks that it has so many samples. */
private fun audioOf(open: OpenBundle, case: Case, sampleRate: Int): FloatArray =
    readRecorded(open.bundle.readBytes(case.raw.getValue("audio") as String), sampleRate)
        .copyOf(case.raw.getValue("samples") as Int)

/** Milliseconds of single runs, ascending. */
private fun timesOf(work: Workload): List<Double> {
    val times = ArrayList<Double>()
    val begin = System.nanoTime()
    while (times.size < LEAST_RUNS || times.size < MOST_RUNS && System.nanoTime() - begin < ENOUGH_NS) {
        val start = System.nanoTime()
        work.run()
        times += (System.nanoTime() - start) / 1e6
    }
    return times.sorted()
}

/** The smallest of ascending values that so large a part of them does not exceed. */
private fun percentile(ascending: List<Double>, part: Double): Double =
    ascending[(Math.ceil(part * ascending.size).toInt() - 1).coerceAtLeast(0)]
