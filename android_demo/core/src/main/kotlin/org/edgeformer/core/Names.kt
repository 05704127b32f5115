package org.edgeformer.core

internal const val MAX_NAME_LENGTH = 255
internal const val MAX_NAME_PARTS = 16

private val PART = Regex("[A-Za-z0-9_@+.-]+")
private val WINDOWS_DEVICE = Regex("(con|prn|aux|nul|com\\d|lpt\\d)(\\..*)?", RegexOption.IGNORE_CASE)
private val DRIVE = Regex("[A-Za-z]:.*")

/** Refuses a name that could leave the bundle or that some file system cannot store. */
internal fun checkName(name: String) {
    val shown = shorten(name)
    val parts = name.split('/')
    if (name.startsWith("/") || '\\' in name || DRIVE.matches(name) || ".." in parts) {
        throw BundleError("file name $shown points outside the bundle: expected a relative name like 'vectors/a.json'")
    }
    if (name.length > MAX_NAME_LENGTH || parts.size > MAX_NAME_PARTS) {
        throw BundleError(
            "file name $shown is too long: at most $MAX_NAME_LENGTH characters in $MAX_NAME_PARTS parts are allowed",
        )
    }
    if (!parts.all { PART.matches(it) && !it.endsWith(".") && !WINDOWS_DEVICE.matches(it) }) {
        throw BundleError(
            "file name $shown is not portable: expected parts of A-Z a-z 0-9 _ @ + . - that do not end with a dot",
        )
    }
}

/** Refuses names that are the same on a case-insensitive file system, and files that are also folders. */
internal fun checkDistinct(names: Iterable<String>) {
    val files = HashMap<String, String>()
    val folders = HashMap<String, String>()
    for (name in names) {
        val other = files.put(lower(name), name)
        if (other != null) {
            throw BundleError("file names ${shorten(other)} and ${shorten(name)} are the same on some file systems")
        }
        val parts = name.split('/')
        for (end in 1 until parts.size) {
            val folder = parts.subList(0, end).joinToString("/")
            val first = folders.getOrPut(lower(folder)) { folder }
            if (first != folder) {
                throw BundleError("folders ${shorten(first)} and ${shorten(folder)} are the same on some file systems")
            }
        }
    }
    files.forEach { (key, name) ->
        if (key in folders) throw BundleError("${shorten(name)} is both a file and a folder")
    }
}

/** Names are ASCII; a Turkish locale must not matter. */
private fun lower(name: String) =
    String(CharArray(name.length) { if (name[it] in 'A'..'Z') name[it] + 32 else name[it] })
