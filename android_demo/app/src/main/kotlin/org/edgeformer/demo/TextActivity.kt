package org.edgeformer.demo

import android.view.View
import android.widget.EditText
import android.widget.TextView
import org.edgeformer.core.Bundle
import org.edgeformer.core.Task
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.pipelines.TextClassifier

/** Classifies a sentence. */
class TextActivity : ModelActivity<TextClassifier>(R.layout.text, Task.TEXT_CLASSIFICATION) {
    private lateinit var input: EditText
    private lateinit var answer: TextView
    private lateinit var run: View

    override fun bindViews() {
        input = findViewById(R.id.input) as EditText
        answer = findViewById(R.id.answer) as TextView
        run = findViewById(R.id.run) as View
        run.setOnClickListener { classify(input.text.toString()) }
    }

    override fun openPipeline(bundle: Bundle, engine: Engine) = TextClassifier(bundle, engine)

    override fun setReady(ready: Boolean) {
        run.isEnabled = ready
    }

    private fun classify(text: String) = use({ it.run(text) to it.engine.executedBy }) { (result, executedBy) ->
        answer.text = describe(result)
        val cost = describeCost(result, executedBy)
        show(if (result.truncated) "${getString(R.string.text_truncated)} $cost" else cost)
    }
}
