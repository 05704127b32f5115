import Foundation

/// What a bundle must be to be opened. BUNDLE.md, "Signature" and "Release".
public struct Required: Sendable {
    /// Nothing is required.
    public static let nothing = Required()

    private let keys: [Data]?
    private let name: String?
    private let leastVersion: Int?

    private init() { (keys, name, leastVersion) = (nil, nil, nil) }

    /// What to require.
    ///
    /// - Parameters:
    ///   - keys: public keys of 32 bytes, of which one must have signed the bundle; nil: it may be unsigned.
    ///   - name: the name that its manifest must have; nil: any.
    ///   - leastVersion: the lowest version that its release may have; nil: it need not be a release.
    /// - Throws: `InputError`: a key that is none, an empty list of keys, or a version that no release has.
    public init(keys: [Data]? = nil, name: String? = nil, leastVersion: Int? = nil) throws {
        if let keys { try Signature.check(keys: keys) }
        if let leastVersion, !Release.versions.contains(leastVersion) {
            throw InputError("expected a version from 1 to \(Release.versions.upperBound), found \(leastVersion)")
        }
        (self.keys, self.name, self.leastVersion) = (keys, name, leastVersion)
    }

    /// Whether a signature is asked for.
    var needsSignature: Bool { keys != nil }

    /// Refuses a manifest that none of the keys has signed.
    func check(_ signature: Data?, of manifest: Data) throws {
        try Signature.check(signature, of: manifest, keys: keys)
    }

    /// Refuses another bundle than the wanted one, or an older one.
    func check(name found: String, version: Int?) throws {
        let isOlder = leastVersion.map { version ?? 0 < $0 } ?? false
        guard name.map({ $0 == found }) ?? true, !isOlder else {
            let wanted = [name, leastVersion.map { "version \($0) or later" }].compactMap { $0 }
            let stated = version.map { "version \($0)" } ?? "no \(Release.fileName)"
            throw BundleError(
                "expected the bundle \(wanted.joined(separator: ", ")), found \(found), \(stated): get the right one")
        }
    }
}

/// Which of a publisher's releases a bundle is.
enum Release {
    static let fileName = "release.json"
    static let maxBytes = 1024
    static let versions = 1...(1 << 53) - 1

    /// The version that a release.json states.
    ///
    /// - Throws: `BundleError`: it has other bytes than a release of this name has.
    static func version(_ text: Data, name: String) throws -> Int {
        // What stands behind the last space is the number and the end of the text, which is then compared as a whole.
        let number = text.split(separator: UInt8(ascii: " ")).last.map { $0.prefix(while: isDigit) } ?? Data()
        guard let version = Int(String(decoding: number, as: UTF8.self)), versions.contains(version),
            text.elementsEqual(canonical(name, version).utf8)
        else {
            throw BundleError(
                "\(fileName): expected the canonical text of the name \(shown(name)) and a version from 1 to \(versions.upperBound)"
            )
        }
        return version
    }

    private static func canonical(_ name: String, _ version: Int) -> String {
        "{\n  \"name\": \"\(name)\",\n  \"version\": \(version)\n}\n"
    }
}
