package org.edgeformer.demo

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Spinner
import android.widget.TextView
import java.io.Closeable
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine

/**
 * A screen that works with one bundle at a time, chosen from the installed ones of its tasks.
 *
 * @param P what answers: a pipeline. It is opened, used and closed on the thread of [tasks] alone.
 */
abstract class ModelActivity<P : Any>(private val layout: Int, private val wanted: Set<Task>) :
    Activity() {
    /** The work of this screen. */
    protected lateinit var tasks: Tasks
        private set

    private lateinit var status: TextView
    private var opened: OpenBundle? = null
    private var pipeline: P? = null

    /** Find the views of the layout, and listen to them. */
    protected abstract fun bindViews()

    /** What answers, over an open bundle. Called off the main thread. */
    protected abstract fun openPipeline(bundle: ModelBundle, engine: Engine): P

    /** Let the user start, or not. */
    protected abstract fun setReady(ready: Boolean)

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(layout)
        status = findViewById(R.id.status) as TextView
        bindViews()
        setReady(false)
        tasks = Tasks(wanted.first().key)
        tasks.whenIdle(::closePipeline)
        val store = BundleStore(this)
        tasks.run({ store.installed().filter { it.manifest.task in wanted } }, ::offer, ::showFailure)
    }

    override fun onDestroy() {
        tasks.close()
        super.onDestroy()
    }

    /** Use the open pipeline off the main thread, with the controls off meanwhile. Failures are shown. */
    protected fun <T> use(work: (P) -> T, done: (T) -> Unit) {
        setReady(false)
        show(getString(R.string.working))
        useQuietly(
            work,
            { result ->
                setReady(true)
                show("")
                done(result)
            },
            { error ->
                setReady(true)
                showFailure(error)
            },
        )
    }

    /** As [use], for work that nobody waits for: nothing is said, and the controls stay as they are. */
    protected fun <T> useQuietly(work: (P) -> T, done: (T) -> Unit, failed: (Exception) -> Unit) =
        tasks.run({ work(checkNotNull(pipeline) { "no bundle is open" }) }, done, failed)

    /** One line of state, which screen readers say. */
    protected fun show(text: String) {
        status.text = text
    }

    /** What went wrong, as the line of state. */
    protected fun showFailure(error: Exception) = show(describe(error))

    private fun offer(bundles: List<InstalledBundle>) {
        if (bundles.isEmpty()) return show(getString(R.string.bundle_none))
        val names = ArrayAdapter(this, android.R.layout.simple_spinner_item, bundles.map { it.name })
        names.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
        val choice = findViewById(R.id.bundles) as Spinner
        choice.adapter = names
        choice.onItemSelectedListener =
            object : AdapterView.OnItemSelectedListener {
                override fun onItemSelected(parent: AdapterView<*>?, row: View?, position: Int, id: Long) =
                    choose(bundles[position])

                override fun onNothingSelected(parent: AdapterView<*>?) = Unit
            }
    }

    private fun choose(bundle: InstalledBundle) {
        setReady(false)
        show(getString(R.string.opening))
        tasks.run(
            {
                closePipeline()
                val open = bundle.open().also { opened = it }
                pipeline = openPipeline(open.bundle, open.engine)
            },
            {
                setReady(true)
                show("")
            },
            ::showFailure,
        )
    }

    private fun closePipeline() {
        (pipeline as? Closeable)?.close()
        pipeline = null
        opened?.close()
        opened = null
    }
}
