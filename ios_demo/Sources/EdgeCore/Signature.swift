import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#endif

/// Who made a bundle: an Ed25519 signature over its manifest, whose hashes cover every other file. BUNDLE.md, "Signature".
enum Signature {
    static let fileName = "manifest.sig"
    static let byteCount = 64
    private static let domain = Data("edgeformer-bundle-manifest-1\n".utf8)

    private static let keyBytes = 32
    /// 2^255 - 19, and the order of the group, the lowest byte first.
    private static let field = bytes(of: "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
    private static let order = bytes(of: "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
    /// Points of small order: under such a key anybody makes signatures that fit.
    private static let smallOrder = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ].map(bytes)

    /// Refuse what is no list of public keys.
    ///
    /// - Throws: `InputError`: no key, or one that is none, or under which anybody could sign.
    static func check(keys: [Data]) throws {
        guard !keys.isEmpty else { throw InputError("expected at least one public key, found an empty list") }
        for key in keys {
            guard key.count == keyBytes else {
                throw InputError("expected \(keyBytes) bytes of an Ed25519 public key, found \(key.count)")
            }
            if let problem = problem(ofPoint: [UInt8](key)) {
                throw InputError("expected an Ed25519 public key, found \(problem)")
            }
        }
    }

    /// Check the signature before anything in the manifest is believed.
    ///
    /// - Parameters:
    ///   - signature: the bytes of manifest.sig; nil: there is none.
    ///   - manifest: the exact bytes of manifest.json.
    ///   - keys: public keys that have passed `check(keys:)`, of which one must have signed; nil: none is required, and
    ///     only the form is checked.
    /// - Throws: `BundleError`: no signature where one is required, or none of these keys' over this manifest.
    ///   `InputError`: this system cannot check signatures.
    static func check(_ signature: Data?, of manifest: Data, keys: [Data]?) throws {
        if let signature, signature.count != byteCount {
            throw BundleError("\(fileName): expected \(byteCount) bytes, found \(signature.count): sign it again")
        }
        guard let keys else { return }
        guard let signature else {
            throw BundleError("a signature is required, and the bundle has none: expected \(fileName) in it")
        }
        if let problem = problem(of: signature) {
            throw BundleError("\(fileName): expected an Ed25519 signature, found \(problem)")
        }
        guard try fits(signature, message: domain + manifest, keys: keys) else {
            throw BundleError("\(fileName): no required key's signature of this manifest: do not use the bundle")
        }
    }

    /// Whether a signature of 64 bytes is one of the keys' over a message.
    ///
    /// - Throws: `InputError`: this system cannot check signatures.
    static func fits(_ signature: Data, message: Data, keys: [Data]) throws -> Bool {
        guard problem(of: signature) == nil else { return false }
        #if canImport(CryptoKit)
            return try keys.contains { key in
                guard let publicKey = try? Curve25519.Signing.PublicKey(rawRepresentation: key) else {
                    throw InputError("expected an Ed25519 public key, found other bytes")
                }
                return publicKey.isValidSignature(signature, for: message)
            }
        #else
            throw InputError("signatures are checked with CryptoKit, which this system lacks: open it without a key")
        #endif
    }

    private static func problem(of signature: Data) -> String? {
        let beyond = isBelow([UInt8](signature.dropFirst(keyBytes)), order) ? nil : "an S beyond the group's order"
        return problem(ofPoint: [UInt8](signature.prefix(keyBytes))) ?? beyond
    }

    /// What is wrong with the 32 bytes of a point; nil where nothing is. Implementations differ in what they take.
    private static func problem(ofPoint point: [UInt8]) -> String? {
        var y = point
        y[31] &= 0x7F
        guard isBelow(y, field) else { return "a point that is not written as RFC 8032 says" }
        return smallOrder.contains(y) ? "a point of small order, for which anybody can sign" : nil
    }

    /// Compares numbers whose lowest byte comes first.
    private static func isBelow(_ number: [UInt8], _ limit: [UInt8]) -> Bool {
        number.reversed().lexicographicallyPrecedes(limit.reversed())
    }

    private static func bytes(of hexadecimal: String) -> [UInt8] {
        let digits = hexadecimal.compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }
}
