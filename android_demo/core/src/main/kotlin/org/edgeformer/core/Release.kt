package org.edgeformer.core

const val RELEASE_NAME = "release.json"
private const val MAX_RELEASE_BYTES = 1024
private const val MAX_VERSION = (1L shl 53) - 1
private val RELEASE = Regex("\\{\n  \"name\": \"([^\"]*)\",\n  \"version\": ([1-9][0-9]{0,15})\n\\}\n")

/**
 * What a bundle must be to be opened (BUNDLE.md, "Signature" and "Release").
 *
 * @property keys public keys of 32 bytes, of which one must have signed the bundle; null: it may be unsigned.
 * @property name the name that its manifest must have; null: any.
 * @property leastVersion the lowest version that its release may have; null: it need not be a release.
 * @throws InputError a key that is none, an empty list of keys, or a version that no release has.
 */
class Required(val keys: List<ByteArray>? = null, val name: String? = null, val leastVersion: Long? = null) {
    init {
        keys?.let(::checkKeys)
        if (leastVersion != null && leastVersion !in 1..MAX_VERSION) {
            throw InputError("expected a version from 1 to $MAX_VERSION, found $leastVersion")
        }
    }

    /** Refuses another bundle than the wanted one, or an older one. */
    internal fun check(manifest: BundleManifest, version: Long?) {
        val wanted = listOfNotNull(name, leastVersion?.let { "version $it or later" }).joinToString(", ")
        val isOlder = leastVersion != null && (version == null || version < leastVersion)
        if ((name != null && name != manifest.name) || isOlder) {
            val found = version?.let { "version $it" } ?: "no $RELEASE_NAME"
            throw BundleError("expected the bundle $wanted, found ${manifest.name}, $found: get the right one")
        }
    }
}

/** The version that a bundle's release.json states; null where the manifest lists none. */
internal fun readRelease(manifest: BundleManifest, files: BundleFiles): Long? {
    if (RELEASE_NAME !in manifest.files) return null
    return parseRelease(files.read(RELEASE_NAME, MAX_RELEASE_BYTES), manifest.name)
}

/** The version in a release.json, whose every byte is prescribed. */
internal fun parseRelease(bytes: ByteArray, name: String): Long {
    val found = RELEASE.matchEntire(String(bytes, Charsets.ISO_8859_1))?.groupValues
    val version = found?.get(2)?.toLong()
    if (version == null || version > MAX_VERSION || found[1] != name) {
        throw BundleError(
            "$RELEASE_NAME: expected the canonical text of the name ${shorten(name)} and a version from 1 to $MAX_VERSION",
        )
    }
    return version
}
