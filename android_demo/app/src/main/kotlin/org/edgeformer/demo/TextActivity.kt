package org.edgeformer.demo

import android.view.View
import android.widget.EditText
import android.widget.TextView
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.TextPipeline
import org.edgeformer.core.pipelines.openTextPipeline
import org.edgeformer.core.preprocess.RawText

/** The tasks that read a text, or a text and a second one. */
private val TEXT_TASKS = setOf(
    Task.TEXT_CLASSIFICATION,
    Task.TEXT_EMBEDDING,
    Task.TEXT_SCORING,
    Task.QUESTION_ANSWERING,
    Task.TOKEN_CLASSIFICATION,
    Task.FILL_MASK,
)

/** Answers a text with a bundle of any task that reads texts. */
class TextActivity : ModelActivity<TextPipeline<*>>(R.layout.text, TEXT_TASKS) {
    private lateinit var input: EditText
    private lateinit var second: EditText
    private lateinit var answer: TextView
    private lateinit var run: View

    override fun bindViews() {
        input = findViewById(R.id.input) as EditText
        second = findViewById(R.id.second) as EditText
        answer = findViewById(R.id.answer) as TextView
        run = findViewById(R.id.run) as View
        run.setOnClickListener { ask(input.text.toString(), second.text.toString()) }
    }

    override fun openPipeline(bundle: ModelBundle, engine: Engine) = openTextPipeline(bundle, engine)

    override fun setReady(ready: Boolean) {
        run.isEnabled = ready
    }

    private fun ask(text: String, second: String) {
        val raw = if (second.isEmpty()) RawText.Single(text) else RawText.Pair(text, second)
        use({ it.run(raw) to it.engine.executedBy }) { (result, executedBy) ->
            answer.text = describe(result)
            val cost = describeCost(result, executedBy)
            show(if (result.truncated) "${getString(R.string.text_truncated)} $cost" else cost)
        }
    }
}
