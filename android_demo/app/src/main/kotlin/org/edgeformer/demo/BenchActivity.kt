package org.edgeformer.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.view.WindowManager
import android.widget.Button
import android.widget.TextView
import java.io.File
import java.io.IOException
import org.edgeformer.android.Photo
import org.edgeformer.core.EdgeFormerError

/**
 * Measures every installed bundle, also those of several attention kernels, and checks it against its vectors.
 *
 * Started by `edgeformer bench --on adb://` it starts by itself, with the bundles that the intent names alone, and
 * writes the report into the app's own folder, where adb fetches it.
 */
class BenchActivity : Activity() {
    private lateinit var tasks: Tasks
    private lateinit var status: TextView
    private lateinit var answer: TextView
    private lateinit var run: Button
    private lateinit var export: Button
    private val rows = ArrayList<BenchRow>()

    /** Whether bundles are being measured; the thread that does so reads it between two. */
    @Volatile
    private var running = false

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.bench)
        tasks = Tasks("bench")
        status = findViewById(R.id.status) as TextView
        answer = findViewById(R.id.answer) as TextView
        run = findViewById(R.id.run) as Button
        export = findViewById(R.id.export) as Button
        run.setOnClickListener { if (running) stop() else start() }
        export.setOnClickListener { chooseFile() }
        if (requested() != null) start()
    }

    override fun onDestroy() {
        running = false
        tasks.close()
        super.onDestroy()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val uri = data?.data ?: return
        if (resultCode != RESULT_OK) return
        val text = report(rows)
        tasks.run(
            {
                val stream = contentResolver.openOutputStream(uri) ?: throw IOException("no file at $uri")
                stream.use { it.write(text.toByteArray()) }
            },
            { status.setText(R.string.bench_exported) },
            { status.text = describe(it) },
        )
    }

    /** The name of the report that the intent asks for: hexadecimal digits, so that it names no other file. */
    private fun requested(): String? = intent.getStringExtra(EXTRA_REPORT)?.takeIf(REPORT_ID::matches)

    /** Which bundles the intent names; null: all. */
    private fun chosen(): Set<String>? = intent.getStringExtra(EXTRA_BUNDLES)?.split(",")?.toSet()

    private fun start() {
        running = true
        rows.clear()
        show()
        run.setText(R.string.bench_stop)
        export.isEnabled = false
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        tasks.run(::measureAll, { finish(getString(R.string.bench_done, rows.size)) }, { finish(describe(it)) })
        requested()?.let(::deliver)
    }

    /** Write the report behind the measurements, whose last row is shown before this task's end is told. */
    private fun deliver(id: String) {
        tasks.run({ }, { write(id, report(rows)) }, { status.text = describe(it) })
    }

    /** The file gets its name when it is complete. */
    private fun write(id: String, text: String) {
        tasks.run(
            {
                val folder = getExternalFilesDir(REPORT_FOLDER) ?: throw IOException("no storage for reports")
                val partial = File(folder, "$id.partial")
                partial.writeText(text)
                if (!partial.renameTo(File(folder, "$id.json"))) throw IOException("no file $id.json in $folder")
            },
            { status.setText(R.string.bench_exported) },
            { status.text = describe(it) },
        )
    }

    /** After the bundle that is being measured. */
    private fun stop() {
        running = false
        run.isEnabled = false
    }

    private fun finish(message: String) {
        running = false
        run.isEnabled = true
        run.setText(R.string.bench_run)
        export.isEnabled = rows.isNotEmpty()
        window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        status.text = message
    }

    private fun measureAll() {
        val store = BundleStore(this)
        val only = chosen()
        val bundles = store.installed().filter { only == null || it.name in only }
        val broken = store.broken.filterKeys { only == null || it in only }
            .map { (name, error) -> BenchRow.Failed(name, error) }
        tasks.post { add(broken) }
        bundles.forEachIndexed { index, bundle ->
            if (!running) return
            tasks.post { status.text = getString(R.string.bench_running, bundle.name, index + 1, bundles.size) }
            val row = try {
                BenchRow.Measured(measure(bundle, Photo(cacheDir)))
            } catch (error: EdgeFormerError) {
                BenchRow.Failed(bundle.name, error)
            }
            tasks.post { add(listOf(row)) }
        }
    }

    private fun add(more: List<BenchRow>) {
        rows += more
        show()
    }

    private fun show() {
        answer.text = rows.joinToString("\n\n", transform = ::describe)
    }

    private fun describe(row: BenchRow): String = when (row) {
        is BenchRow.Failed -> getString(R.string.bench_failed, row.name, describe(row.error))
        is BenchRow.Measured -> with(row.measurement) {
            val diverging = verification.firstDiverging
            val outcome = diverging?.let { getString(R.string.bench_diverges, it) } ?: getString(R.string.bench_passed)
            getString(
                R.string.bench_row,
                name,
                executedBy,
                manifest.precision,
                manifest.attention,
                loadMs,
                medianMs,
                p90Ms,
                memoryMb,
                outcome,
            )
        }
    }

    private fun chooseFile() {
        val intent = Intent(Intent.ACTION_CREATE_DOCUMENT)
            .addCategory(Intent.CATEGORY_OPENABLE)
            .setType("application/json")
            .putExtra(Intent.EXTRA_TITLE, REPORT_NAME)
        startActivityForResult(intent, EXPORT)
    }

    private companion object {
        const val EXPORT = 1
        const val REPORT_NAME = "edgeformer-bench.json"
        const val REPORT_FOLDER = "bench"
        const val EXTRA_REPORT = "report"
        const val EXTRA_BUNDLES = "bundles"
        val REPORT_ID = Regex("[0-9a-f]{1,32}")
    }
}
