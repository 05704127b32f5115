import Foundation

/// What changes a text before it is split: its steps, in their order.
struct Normalizer: Sendable {
    private enum Step: Sendable {
        case bert(BertNormalizer)
        case form(composes: Bool, compatible: Bool)
        case lowercase
        case stripAccents
        case strip(left: Bool, right: Bool)
        case prepend([UInt32])
        case replace(Pattern, [UInt32])
        case precompiled(Precompiled)
    }

    private let steps: [Step]

    /// Read the `normalizer` of a tokenizers file.
    init(_ value: JsonValue, path: String) throws {
        var reader = StepReader("normalizers", once: ["Precompiled", "Prepend"])
        steps = try reader.read(value, path) { value, type, path in
            var growth = 1.0
            let step = try Self.step(value, type, path, &growth)
            return (step, growth)
        }
    }

    private static func step(
        _ value: JsonValue, _ type: String, _ path: String, _ growth: inout Double
    ) throws -> Step {
        func record(_ keys: String...) throws -> Record { try Record(value, at: path, keys: ["type"] + keys) }
        switch type {
        case "BertNormalizer": return .bert(try BertNormalizer(value, path: path))
        case "NFC", "NFD", "NFKC", "NFKD":
            _ = try record()
            return .form(composes: type.hasSuffix("C"), compatible: type.hasPrefix("NFK"))
        case "Lowercase":
            _ = try record()
            return .lowercase
        case "StripAccents":
            _ = try record()
            return .stripAccents
        case "Strip":
            let record = try record("strip_left", "strip_right")
            return .strip(left: try record.flag("strip_left"), right: try record.flag("strip_right"))
        case "Prepend":
            return .prepend(try record("prepend").text("prepend", count: 1...64).unicodeScalars.map(\.value))
        case "Replace":
            let record = try record("pattern", "content")
            let (stated, place) = try record.value("pattern")
            let pattern = try Pattern(stated, place)
            let content = try record.text("content").unicodeScalars.map(\.value)
            growth = Double(content.count) / Double(pattern.shortest)
            return .replace(pattern, content)
        case "Precompiled": return .precompiled(try Precompiled(try record("precompiled_charsmap"), path))
        default: throw BundleError("\(path): the normalizer \(shown(type)) has no reader here")
        }
    }

    func normalize(_ text: Codes) -> Codes { steps.reduce(text) { Self.apply($1, to: $0) } }

    private static func apply(_ step: Step, to text: Codes) -> Codes {
        switch step {
        case .bert(let normalizer): return normalizer.normalize(text)
        case .form(true, let compatible): return UnicodeData.compose(text, compatible: compatible)
        case .form(false, let compatible): return UnicodeData.decompose(text, compatible: compatible)
        case .lowercase: return text.flatMap { UnicodeData.lowered[$0] ?? [$0] }
        case .stripAccents: return text.filter { !UnicodeData.marks.contains($0) }
        case .strip(let left, let right):
            var (start, end) = (0, text.count)
            if left { while start < end, UnicodeData.whiteSpace.contains(text.codes[start]) { start += 1 } }
            if right { while end > start, UnicodeData.whiteSpace.contains(text.codes[end - 1]) { end -= 1 } }
            return text[start..<end]
        case .prepend(let prefix): return text.prefixed(prefix)
        case .replace(let pattern, let content): return text.replaced(pattern, content)
        case .precompiled(let map): return map.normalize(text)
        }
    }
}

/// A map of characters of SentencePiece: a trie of UTF-8 (a double array, Aoe 1989) whose leaves are places in a blob
/// of replacements, each closed by a NUL. A grapheme of up to five bytes is looked up whole, by its shortest prefix
/// that is there, and then stands for all of it; others are looked up character by character.
struct Precompiled: Sendable {
    private static let (maxGraphemeBytes, maxEntryBytes) = (5, 128)
    private let units: [UInt32]
    private let blob: [UInt8]

    init(_ record: Record, _ path: String) throws {
        guard let data = Data(base64Encoded: try record.text("precompiled_charsmap")).map({ [UInt8]($0) }) else {
            throw BundleError("\(path): precompiled_charsmap: not base64")
        }
        func number(_ at: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(data[at + $1]) << (8 * UInt32($1)) }
        }
        let size = data.count < 8 ? 0 : Int(number(0))
        guard size >= 4, size % 4 == 0, size <= data.count - 4 else {
            throw BundleError("\(path): precompiled_charsmap: expected a map of SentencePiece")
        }
        units = (0..<size / 4).map { number(4 + 4 * $0) }
        blob = Array(data[(4 + size)...])
        let longest = blob.split(separator: 0, omittingEmptySubsequences: true).map(\.count).max() ?? 0
        guard longest <= Self.maxEntryBytes else {
            throw BundleError("\(path): precompiled_charsmap: expected entries of at most \(Self.maxEntryBytes) bytes")
        }
    }

    func normalize(_ text: Codes) -> Codes {
        var changes: [Change] = []
        let codes = text.codes
        var start = 0
        while start < codes.count {
            var end = start + 1
            while end < codes.count, UnicodeData.joins(codes[end - 1], codes[end]) { end += 1 }
            let bytes = codes[start..<end].reduce(0) { $0 + utf8Length($1) }
            if bytes <= Self.maxGraphemeBytes, let whole = found(codes[start..<end]) {
                Self.replace(end - start, with: whole, &changes)
            } else {
                for index in start..<end {
                    if let single = found(codes[index...index]) {
                        Self.replace(1, with: single, &changes)
                    } else {
                        changes.append(Change(code: codes[index], change: 0))
                    }
                }
            }
            start = end
        }
        return text.changed(by: changes)
    }

    /// Adds what stands for `count` characters: the last ones are more than there were, or the last one is for more.
    private static func replace(_ count: Int, with text: [UInt32], _ changes: inout [Change]) {
        changes += text.map { Change(code: $0, change: 0) }
        let more = text.count - count
        for index in changes.count - max(more, 0)..<changes.count { changes[index].change = 1 }
        if more < 0, !changes.isEmpty { changes[changes.count - 1].change += more }
    }

    private func found(_ codes: ArraySlice<UInt32>) -> [UInt32]? {
        var node = Self.offset(units[0])
        for code in codes {
            for key in utf8(code) {
                node ^= Int(key)
                guard key > 0, node < units.count, units[node] & 0x8000_00FF == UInt32(key) else { return nil }
                let unit = units[node]
                node ^= Self.offset(unit)
                guard unit >> 8 & 1 == 1 else { continue }
                guard node < units.count else { return nil }
                return replacement(Int(units[node] & 0x7FFF_FFFF))
            }
        }
        return nil
    }

    private func replacement(_ start: Int) -> [UInt32]? {
        guard start < blob.count else { return nil }
        let end = blob[start...].firstIndex(of: 0) ?? blob.count
        return String(decoding: blob[start..<end], as: UTF8.self).unicodeScalars.map(\.value)
    }

    private static func offset(_ unit: UInt32) -> Int { Int((unit >> 10) << ((unit & (1 << 9)) >> 6)) }
}

/// The bytes of a code point.
func utf8(_ code: UInt32) -> [UInt8] {
    let length = utf8Length(code)
    if length == 1 { return [UInt8(code)] }
    let lead = UInt8(truncatingIfNeeded: 0xF00 >> UInt32(length)) | UInt8(code >> UInt32(6 * (length - 1)))
    return [lead] + (0..<length - 1).reversed().map { UInt8(0x80 | code >> UInt32(6 * $0) & 0x3F) }
}

func utf8Length(_ code: UInt32) -> Int { code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4 }
