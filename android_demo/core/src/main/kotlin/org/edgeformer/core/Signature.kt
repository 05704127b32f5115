package org.edgeformer.core

import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.Signature
import java.security.spec.X509EncodedKeySpec

const val SIGNATURE_NAME = "manifest.sig"
internal const val SIGNATURE_BYTES = 64
private const val PUBLIC_KEY_BYTES = 32
private const val ALGORITHM = "Ed25519"

/** What stands before the manifest's bytes in what is signed, so that no signature made for anything else fits. */
private val DOMAIN = "edgeformer-bundle-manifest-1\n".toByteArray()

/** What stands before a key in its SubjectPublicKeyInfo (RFC 8410). */
private val KEY_PREFIX = intArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)
    .let { prefix -> ByteArray(prefix.size) { prefix[it].toByte() } }

/** 2^255 - 19, and the order of the group: 32 bytes each, the lowest first. */
private val FIELD = bytesOf("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
private val ORDER = bytesOf("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")

/** Points of small order: under such a key anybody makes signatures that fit. */
private val SMALL_ORDER = listOf(
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
).map(::bytesOf)

/**
 * Refuses what is no list of public keys (BUNDLE.md, "Signature").
 *
 * @throws InputError no key, or one that is none, or under which anybody could sign.
 */
internal fun checkKeys(keys: List<ByteArray>) {
    if (keys.isEmpty()) throw InputError("expected at least one public key, found an empty list")
    for (key in keys) {
        if (key.size != PUBLIC_KEY_BYTES) {
            throw InputError("expected $PUBLIC_KEY_BYTES bytes of an Ed25519 public key, found ${key.size}")
        }
        pointProblem(key)?.let { throw InputError("expected an Ed25519 public key, found $it") }
    }
}

/**
 * Checks who made a bundle before anything in its manifest is believed (BUNDLE.md, "Signature").
 *
 * @param signature the bytes of manifest.sig; null: there is none.
 * @param manifest the exact bytes of manifest.json.
 * @param keys public keys that have passed [checkKeys], of which one must have signed; null: none is required, and only
 *   the form is checked.
 * @throws BundleError no signature where one is required, or none of these keys' over this manifest.
 * @throws InputError this platform cannot check signatures: Android can from API 33 on.
 */
internal fun checkSignature(signature: ByteArray?, manifest: ByteArray, keys: List<ByteArray>?) {
    if (signature != null && signature.size != SIGNATURE_BYTES) {
        throw BundleError("$SIGNATURE_NAME: expected $SIGNATURE_BYTES bytes, found ${signature.size}: sign it again")
    }
    if (keys == null) return
    if (signature == null) {
        throw BundleError("a signature is required, and the bundle has none: expected $SIGNATURE_NAME in it")
    }
    val problem = signatureProblem(signature)
    if (problem != null) throw BundleError("$SIGNATURE_NAME: expected an Ed25519 signature, found $problem")
    if (signerOf(signature, DOMAIN + manifest, keys) == null) {
        val named = if (keys.size == 1) "the required key" else "one of the ${keys.size} required keys"
        throw BundleError(
            "$SIGNATURE_NAME: not a signature of this manifest by $named: the bundle was changed after it was " +
                "signed, or signed with another key",
        )
    }
}

/** The first of some keys whose signature of a message this is; null: it is none's, or of a form that nobody makes. */
internal fun signerOf(signature: ByteArray, message: ByteArray, keys: List<ByteArray>): ByteArray? =
    if (signatureProblem(signature) != null) null else keys.firstOrNull { isSignedBy(it, signature, message) }

private fun signatureProblem(signature: ByteArray): String? {
    val scalar = signature.copyOfRange(PUBLIC_KEY_BYTES, SIGNATURE_BYTES)
    return pointProblem(signature.copyOf(PUBLIC_KEY_BYTES))
        ?: if (isBelow(scalar, ORDER)) null else "an S beyond the group's order"
}

private fun isSignedBy(key: ByteArray, signature: ByteArray, message: ByteArray): Boolean {
    val verifier = try {
        val public = KeyFactory.getInstance(ALGORITHM).generatePublic(X509EncodedKeySpec(KEY_PREFIX + key))
        Signature.getInstance(ALGORITHM).apply { initVerify(public) }
    } catch (error: GeneralSecurityException) {
        throw InputError("Ed25519 signatures cannot be checked with this key here: ${error.message}", error)
    }
    return try {
        verifier.update(message)
        verifier.verify(signature)
    } catch (error: GeneralSecurityException) {
        false
    }
}

/** What is wrong with the 32 bytes of a point; null where nothing is. Implementations differ in what they take. */
private fun pointProblem(point: ByteArray): String? {
    val y = point.copyOf().also { it[31] = (it[31].toInt() and 0x7F).toByte() }
    return when {
        !isBelow(y, FIELD) -> "a point that is not written as RFC 8032 says"
        SMALL_ORDER.any { it.contentEquals(y) } -> "a point of small order, for which anybody can sign"
        else -> null
    }
}

/** Compares numbers whose lowest byte comes first. */
private fun isBelow(number: ByteArray, limit: ByteArray): Boolean {
    for (at in number.indices.reversed()) {
        val (a, b) = (number[at].toInt() and 0xFF) to (limit[at].toInt() and 0xFF)
        if (a != b) return a < b
    }
    return false
}

/** The bytes that hexadecimal digits write. */
internal fun bytesOf(hexadecimal: String) =
    ByteArray(hexadecimal.length / 2) { hexadecimal.substring(2 * it, 2 * it + 2).toInt(16).toByte() }
