/// A text that equals another one code point by code point.
///
/// Swift's own strings are equal where Unicode says that they look the same ("é" in one code point or in two). Names,
/// labels and vocabularies tell these apart.
struct ExactString: Hashable, Sendable {
    let text: String

    init(_ text: String) { self.text = text }

    static func == (a: ExactString, b: ExactString) -> Bool { a.text.utf8.elementsEqual(b.text.utf8) }

    func hash(into hasher: inout Hasher) {
        for byte in text.utf8 { hasher.combine(byte) }
    }
}

/// The first text that occurs twice, exactly, or nil.
func firstRepeated(_ texts: some Sequence<String>) -> String? {
    var seen: Set<ExactString> = []
    return texts.first { !seen.insert(ExactString($0)).inserted }
}
