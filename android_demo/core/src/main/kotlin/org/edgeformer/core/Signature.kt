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

/**
 * Checks who made a bundle before anything in its manifest is believed (BUNDLE.md, "Signature").
 *
 * @param signature the bytes of manifest.sig; null: there is none.
 * @param manifest the exact bytes of manifest.json.
 * @param key the public key's 32 bytes; null: none is required, and only the form is checked.
 * @throws BundleError no signature where one is required, or not this key's over this manifest.
 * @throws InputError the key is none, or this platform cannot check signatures: Android can from API 33 on.
 */
internal fun checkSignature(signature: ByteArray?, manifest: ByteArray, key: ByteArray?) {
    if (signature != null && signature.size != SIGNATURE_BYTES) {
        throw BundleError("$SIGNATURE_NAME: expected $SIGNATURE_BYTES bytes, found ${signature.size}: sign it again")
    }
    if (key == null) return
    if (key.size != PUBLIC_KEY_BYTES) {
        throw InputError("expected $PUBLIC_KEY_BYTES bytes of an Ed25519 public key, found ${key.size}")
    }
    if (signature == null) {
        throw BundleError("a signature is required, and the bundle has none: expected $SIGNATURE_NAME in it")
    }
    val fits = try {
        val public = KeyFactory.getInstance(ALGORITHM).generatePublic(X509EncodedKeySpec(KEY_PREFIX + key))
        val verifier = Signature.getInstance(ALGORITHM)
        verifier.initVerify(public)
        verifier.update(DOMAIN)
        verifier.update(manifest)
        verifier
    } catch (error: GeneralSecurityException) {
        throw InputError("Ed25519 signatures cannot be checked with this key here: ${error.message}", error)
    }.let { verifier ->
        try {
            verifier.verify(signature)
        } catch (error: GeneralSecurityException) {
            false
        }
    }
    if (!fits) {
        throw BundleError(
            "$SIGNATURE_NAME: not a signature of this manifest by the required key: the bundle was changed after it " +
                "was signed, or signed with another key",
        )
    }
}
