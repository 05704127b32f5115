import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#endif

/// Who made a bundle: an Ed25519 signature over its manifest, whose hashes cover every other file. BUNDLE.md, "Signature".
enum Signature {
    static let fileName = "manifest.sig"
    static let byteCount = 64
    private static let domain = Data("edgeformer-bundle-manifest-1\n".utf8)

    /// Check the signature before anything in the manifest is believed.
    ///
    /// - Parameters:
    ///   - signature: the bytes of manifest.sig; nil: there is none.
    ///   - manifest: the exact bytes of manifest.json.
    ///   - key: the public key's 32 bytes; nil: none is required, and only the form is checked.
    /// - Throws: `BundleError`: no signature where one is required, or not this key's over this manifest.
    ///   `InputError`: the key is none, or this system cannot check signatures.
    static func check(_ signature: Data?, of manifest: Data, key: Data?) throws {
        if let signature, signature.count != byteCount {
            throw BundleError("\(fileName): expected \(byteCount) bytes, found \(signature.count): sign it again")
        }
        guard let key else { return }
        guard let signature else {
            throw BundleError("a signature is required, and the bundle has none: expected \(fileName) in it")
        }
        #if canImport(CryptoKit)
            guard let publicKey = try? Curve25519.Signing.PublicKey(rawRepresentation: key) else {
                throw InputError("expected a public key of 32 bytes, found \(key.count)")
            }
            guard publicKey.isValidSignature(signature, for: domain + manifest) else {
                throw BundleError(
                    "\(fileName): not the required key's signature of this manifest: do not use the bundle")
            }
        #else
            throw InputError("signatures are checked with CryptoKit, which this system lacks: open it without a key")
        #endif
    }
}
