package org.edgeformer.demo

import android.content.Context
import java.io.Closeable
import java.io.File
import org.edgeformer.android.AssetFolder
import org.edgeformer.core.Archive
import org.edgeformer.core.BundleFiles
import org.edgeformer.core.BundleManifest
import org.edgeformer.core.EdgeFormerError
import org.edgeformer.core.Folder
import org.edgeformer.core.MANIFEST_NAME
import org.edgeformer.core.MAX_MANIFEST_BYTES
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.engines.Engine
import org.edgeformer.engine.openEngine

/**
 * A bundle that the app can open.
 *
 * @property name of its folder or zip.
 * @property manifest as it was when the list was made; opening checks it again, with all files.
 */
class InstalledBundle(
    val name: String,
    val manifest: BundleManifest,
    private val cache: File,
    private val files: () -> BundleFiles,
) {
    /** Opens the bundle and its engine; slow, as every file's hash is checked. */
    fun open(): OpenBundle {
        val bundle = ModelBundle.open(files())
        try {
            return OpenBundle(bundle, openEngine(bundle, cache))
        } catch (error: EdgeFormerError) {
            bundle.close()
            throw error
        }
    }
}

/** A bundle with its engine. */
class OpenBundle(val bundle: ModelBundle, val engine: Engine) : Closeable {
    override fun close() {
        engine.close()
        bundle.close()
    }
}

/**
 * The installed bundles: those among the app's assets, and those that lie in the app's own folders, put there by the
 * app or over USB. One of the same name in a folder stands before the one in the assets.
 */
class BundleStore(context: Context) {
    private val assets = context.assets
    private val folders = listOfNotNull(context.getExternalFilesDir(FOLDER), File(context.filesDir, FOLDER))
    private val cache = File(context.cacheDir, FOLDER)

    /** All bundles, by name. Those whose manifest cannot be read are in [broken]. Slow: reads files. */
    fun installed(): List<InstalledBundle> {
        broken = emptyMap()
        val places = LinkedHashMap<String, () -> BundleFiles>()
        for (name in assets.list(FOLDER).orEmpty()) places[name] = { AssetFolder(assets, "$FOLDER/$name") }
        for (file in folders.flatMap { it.listFiles().orEmpty().asList() }) {
            places[file.name.removeSuffix(".zip")] = { if (file.isDirectory) Folder(file) else Archive.open(file) }
        }
        return places.toSortedMap().mapNotNull { (name, files) -> read(name, files) }
    }

    /** Why each bundle that is there but not listed cannot be used, by name. */
    var broken: Map<String, EdgeFormerError> = emptyMap()
        private set

    private fun read(name: String, files: () -> BundleFiles): InstalledBundle? = try {
        val bytes = files().use { it.read(MANIFEST_NAME, MAX_MANIFEST_BYTES) }
        InstalledBundle(name, BundleManifest.parse(bytes), cache, files)
    } catch (error: EdgeFormerError) {
        broken = broken + (name to error)
        null
    }

    private companion object {
        const val FOLDER = "bundles"
    }
}
