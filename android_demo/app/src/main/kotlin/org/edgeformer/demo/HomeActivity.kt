package org.edgeformer.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.view.ViewGroup
import android.widget.Button

/** The list of screens. */
class HomeActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.home)
        val list = findViewById(R.id.screens) as ViewGroup
        for ((title, summary, screen) in SCREENS) {
            val button = Button(this)
            button.setAllCaps(false)
            button.text = getString(R.string.screen_row, getString(title), getString(summary))
            button.setOnClickListener { startActivity(Intent(this, screen)) }
            list.addView(button)
        }
    }

    private companion object {
        val SCREENS =
            listOf(
                Triple(R.string.text_title, R.string.text_summary, TextActivity::class.java),
                Triple(R.string.vision_title, R.string.vision_summary, VisionActivity::class.java),
                Triple(R.string.speech_title, R.string.speech_summary, SpeechActivity::class.java),
                Triple(R.string.bench_title, R.string.bench_summary, BenchActivity::class.java),
                Triple(R.string.about_title, R.string.about_summary, AboutActivity::class.java),
            )
    }
}
