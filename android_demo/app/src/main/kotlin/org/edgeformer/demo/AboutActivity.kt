package org.edgeformer.demo

import android.app.Activity
import android.os.Bundle
import android.widget.TextView
import org.edgeformer.core.BundleManifest

/** Where the models come from, as their manifests say, and the licences of what the app is made of. */
class AboutActivity : Activity() {
    private lateinit var tasks: Tasks

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.about)
        val text = findViewById(R.id.answer) as TextView
        tasks = Tasks("about")
        tasks.run(
            {
                val models = BundleStore(this).installed().map { describe(it.name, it.manifest) }
                (models + licences()).joinToString("\n\n")
            },
            { text.text = it },
            { text.text = describe(it) },
        )
    }

    override fun onDestroy() {
        tasks.close()
        super.onDestroy()
    }

    private fun describe(name: String, manifest: BundleManifest): String {
        val source = manifest.source
        val tools = manifest.toolchain.entries.joinToString { (tool, version) -> "$tool $version" }
        return listOfNotNull(
            name,
            getString(R.string.about_engine, manifest.target.key),
            getString(R.string.about_licence, manifest.license ?: getString(R.string.about_licence_unstated)),
            getString(R.string.about_source, source.id),
            source.revision?.let { getString(R.string.about_revision, it) },
            getString(R.string.about_weights, source.weightsSha256),
            getString(R.string.about_recipe, manifest.recipe.name, manifest.attention),
            getString(R.string.about_tools, tools),
        ).joinToString("\n")
    }

    private fun licences(): List<String> =
        assets.list(LICENCES).orEmpty().sorted().map { file ->
            assets.open("$LICENCES/$file").bufferedReader().use { it.readText().trim() }
        }

    private companion object {
        const val LICENCES = "licenses"
    }
}
