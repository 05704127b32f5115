package org.edgeformer.core

import java.security.MessageDigest

const val INDEX_NAME = "index.signed"
private const val MAX_INDEX_BYTES = 4 shl 20
private const val INDEX_VERSION = 1L
private const val MAX_NUMBER = (1L shl 53) - 1
private const val MAX_FILE_BYTES = 1L shl 40
private const val MAX_BUNDLES = 1000
private const val MAX_BUNDLE_FILES = 10_002
private const val LINE = "edgeformer-index-1 "

/** What stands before the JSON in what is signed, so that no signature made for anything else fits. */
private val INDEX_DOMAIN = "edgeformer-index-1\n".toByteArray()
private val SIGNATURE_DIGITS = Regex("[0-9a-f]{128}")
private val HASH = Regex("[0-9a-f]{64}")
private val TIME = Regex("(2[0-9]{3})-([0-9]{2})-([0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])Z")

/** How far a device's clock may be behind the publisher's. */
private const val CLOCK_SLACK_SECONDS = 24 * 3600L

/**
 * A file of a published bundle. Its deltas are not read here: the whole file is what a phone downloads.
 *
 * @property sha256 of its bytes, in hexadecimal.
 * @property size how many there are.
 */
class PublishedFile(val sha256: String, val size: Long) {
    /** Where a site has it, relative to its index. */
    val address: String get() = "files/${sha256.take(2)}/$sha256"
}

/** All files of a bundle by their names, the manifest and its signature included. */
class PublishedBundle(val files: Map<String, PublishedFile>) {
    /** A name of this content: the SHA-256 of all names and hashes, in hexadecimal. */
    val id: String by lazy {
        val lines = files.toSortedMap().entries.joinToString("") { (name, file) -> "${file.sha256} $name\n" }
        hexadecimal(MessageDigest.getInstance("SHA-256").digest(lines.toByteArray()))
    }
}

/**
 * What a publisher's site says to be published (docs/delivery.md): an app that downloads bundles by its own means, as
 * by the system's downloader, reads it with [read], and then takes only what it lists.
 *
 * @property number higher than that of every index published before.
 * @property publishedSeconds when that was, in seconds since 1970 in UTC.
 * @property expiresSeconds when a device that is shown this index no longer believes that it is the newest.
 * @property bundles by the last part of their addresses.
 * @property signer the key that signed it.
 */
class PublishedIndex private constructor(
    val number: Long,
    val publishedSeconds: Long,
    val expiresSeconds: Long,
    val bundles: Map<String, PublishedBundle>,
    val signer: ByteArray,
    private val bytes: ByteArray,
) {
    /**
     * Refuses an index that is older than one seen before, or that has expired.
     *
     * @param known the newest index of the same [signer] that was accepted before; null: there is none.
     * @param nowSeconds the device's time since 1970. A clock that was set back does not make an old index young: it is
     *   at least the time at which `known` was published.
     * @throws BundleError older (a rollback), another one of the same number, or expired (a freeze).
     */
    fun checkNewer(known: PublishedIndex?, nowSeconds: Long = System.currentTimeMillis() / 1000) {
        val time = maxOf(nowSeconds, known?.publishedSeconds ?: nowSeconds)
        if (known != null && number < known.number) {
            throw BundleError("$INDEX_NAME: its number is $number, and ${known.number} was seen before")
        }
        if (known != null && number == known.number && !bytes.contentEquals(known.bytes)) {
            throw BundleError("$INDEX_NAME: another index of the number $number was seen before")
        }
        if (time + CLOCK_SLACK_SECONDS < publishedSeconds) {
            throw BundleError("$INDEX_NAME: published after this device's time: set its clock")
        }
        if (time > expiresSeconds) throw BundleError("$INDEX_NAME: expired: the site shows an old index")
    }

    companion object {
        /**
         * Reads an index from an untrusted place; nothing in it is looked at before its signature fits.
         *
         * @param bytes of index.signed.
         * @param keys public keys of 32 bytes, of which one must have signed it.
         * @throws BundleError too large, not signed by one of the keys, or not as docs/delivery.md says.
         * @throws InputError a key that is none, or a platform that cannot check signatures.
         */
        fun read(bytes: ByteArray, keys: List<ByteArray>): PublishedIndex {
            checkKeys(keys)
            if (bytes.size > MAX_INDEX_BYTES) {
                throw BundleError("$INDEX_NAME: expected at most $MAX_INDEX_BYTES bytes, found ${bytes.size}")
            }
            val end = LINE.length + 2 * SIGNATURE_BYTES
            val line = String(bytes, 0, minOf(end + 1, bytes.size), Charsets.ISO_8859_1)
            val digits = line.removePrefix(LINE).dropLast(1)
            if (!line.startsWith(LINE) || !line.endsWith("\n") || !SIGNATURE_DIGITS.matches(digits)) {
                throw BundleError("$INDEX_NAME: expected the line of a signature, found ${shorten(line)}")
            }
            val content = bytes.copyOfRange(end + 1, bytes.size)
            val signer = signerOf(bytesOf(digits), INDEX_DOMAIN + content, keys)
                ?: throw BundleError("$INDEX_NAME: not signed by a required key, or changed after it was signed")
            return parse(content, signer, bytes)
        }

        private fun parse(content: ByteArray, signer: ByteArray, bytes: ByteArray): PublishedIndex {
            val value = StrictJson.parse(content, INDEX_NAME, MAX_INDEX_BYTES)
            val version = (value as? Map<*, *>)?.get("format_version")
            if (version is Long && version > INDEX_VERSION) {
                throw BundleError("$INDEX_NAME: made by a newer version ($version): upgrade the app")
            }
            return Fields.read(value, INDEX_NAME) { fields ->
                fields.ignoreOthers()
                fields.long("format_version", INDEX_VERSION..INDEX_VERSION)
                PublishedIndex(
                    fields.long("number", 1..MAX_NUMBER),
                    secondsOf(fields.string("published", TIME)),
                    secondsOf(fields.string("expires", TIME)),
                    fields.table("bundles", 1..MAX_BUNDLES, 1..MAX_NAME_LENGTH) { all, name ->
                        all.obj(name, ::bundle)
                    }.also { checkBundleNames(it.keys) },
                    signer,
                    bytes,
                )
            }
        }

        private fun bundle(fields: Fields): PublishedBundle {
            fields.ignoreOthers()
            val files = fields.table("files", 1..MAX_BUNDLE_FILES, 1..MAX_NAME_LENGTH) { all, name ->
                checkName(name)
                all.obj(name) { file ->
                    file.ignoreOthers()
                    PublishedFile(file.string("sha256", HASH), file.long("size", 0..MAX_FILE_BYTES))
                }
            }
            checkDistinct(files.keys)
            return PublishedBundle(files)
        }

        private fun checkBundleNames(names: Set<String>) {
            for (name in names) {
                checkName(name)
                if ('/' in name || name.startsWith(".")) {
                    throw BundleError("$INDEX_NAME: ${shorten(name)}: expected a name without / or a dot before it")
                }
            }
            checkDistinct(names)
        }
    }
}

/** A time like 2027-01-31T12:00:00Z of the Gregorian calendar, in seconds since 1970. java.time came with API 26. */
internal fun secondsOf(text: String): Long {
    val wrong = BundleError("$INDEX_NAME: expected a time like 2027-01-31T12:00:00Z, found ${shorten(text)}")
    val numbers = TIME.matchEntire(text)?.groupValues?.drop(1)?.map { it.toInt() } ?: throw wrong
    val (year, month, day) = numbers
    val isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    val lengths = listOf(31, if (isLeap) 29 else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if (month !in 1..12 || day !in 1..lengths[month - 1]) throw wrong
    val past = year - 1
    val leapDays = past / 4 - past / 100 + past / 400 - 477 // of the years from 1970 on
    val days = 365L * (year - 1970) + leapDays + lengths.take(month - 1).sum() + day - 1
    return ((days * 24 + numbers[3]) * 60 + numbers[4]) * 60 + numbers[5]
}

private fun hexadecimal(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it.toInt() and 0xFF) }
