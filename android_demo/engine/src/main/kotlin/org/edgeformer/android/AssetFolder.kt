package org.edgeformer.android

import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager
import org.edgeformer.core.BundleError
import org.edgeformer.core.BundleFiles
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** A bundle's folder among the app's assets. They are stored uncompressed: each is a part of the APK that is mapped. */
class AssetFolder(private val assets: AssetManager, private val folder: String) : BundleFiles {
    override val what: String get() = "assets/$folder"

    override val sizes: Map<String, Long> = LinkedHashMap<String, Long>().also { scan("", it) }

    override fun map(name: String): ByteBuffer = opened(name) { asset ->
        // The descriptor is the whole APK's. Closing it leaves the map as it is.
        FileInputStream(asset.fileDescriptor).channel
            .map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.length)
    }

    override fun file(name: String): File? = null

    override fun close() = Unit

    /** Assets have no folder entries: what has something below it is a folder. */
    private fun scan(path: String, found: MutableMap<String, Long>) {
        val entries = assets.list(if (path.isEmpty()) folder else "$folder/$path").orEmpty()
        if (entries.isEmpty() && path.isNotEmpty()) found[path] = opened(path) { it.length }
        for (entry in entries) scan(if (path.isEmpty()) entry else "$path/$entry", found)
    }

    private fun <T> opened(name: String, use: (AssetFileDescriptor) -> T): T = try {
        assets.openFd("$folder/$name").use(use)
    } catch (error: IOException) {
        throw BundleError("$what: $name cannot be mapped: ${error.message}", error)
    }
}
