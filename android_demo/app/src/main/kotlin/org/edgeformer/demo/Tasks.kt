package org.edgeformer.demo

import android.os.Handler
import android.os.Looper
import java.io.Closeable
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/**
 * A screen's work off the main thread, one task after the other, for as long as the screen lives.
 *
 * Made and closed on the main thread. Results arrive there too, and only while the screen is open: a task that ends
 * later is forgotten. What tasks own is released by [whenIdle], on their own thread, after the last of them.
 */
class Tasks(name: String) : Closeable {
    private val main = Handler(Looper.getMainLooper())
    private val executor: ExecutorService = Executors.newSingleThreadExecutor { Thread(it, name) }
    private val releases = ArrayList<() -> Unit>()
    private var closed = false

    /** Whether the screen is gone; long tasks ask, and stop. */
    @Volatile
    var cancelled = false
        private set

    /** Do [work] off the main thread, then give its result to [done], or what it threw to [failed]. */
    fun <T> run(work: () -> T, done: (T) -> Unit, failed: (Exception) -> Unit) {
        if (closed) return
        executor.execute {
            try {
                val result = work()
                post { done(result) }
            } catch (error: Exception) {
                post { failed(error) }
            }
        }
    }

    /** Run [show] on the main thread, if the screen is still open then. */
    fun post(show: () -> Unit) {
        main.post { if (!closed) show() }
    }

    /** Run [release] on the tasks' thread when the screen closes, after the last task. */
    fun whenIdle(release: () -> Unit) {
        releases += release
    }

    /** End the work: nothing is posted from now on. */
    override fun close() {
        if (closed) return
        closed = true
        cancelled = true
        executor.execute { releases.asReversed().forEach { it() } }
        executor.shutdown()
    }
}
