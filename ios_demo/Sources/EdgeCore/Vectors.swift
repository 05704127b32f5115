import Foundation

/// A raw input in the form in which vectors store it.
struct StoredInput: Equatable {
    enum Form: Equatable {
        case text(String)
        case pair(String, String)
        case tokenIds([Int])
        case image(String)
        case labelled(image: String, labels: [String])
        case audio(file: String, samples: Int)
    }

    let form: Form

    /// As a text pipeline takes it.
    func text() throws -> RawText {
        switch form {
        case .text(let text): return .text(text)
        case .pair(let first, let second): return .pair(first, second)
        case .tokenIds(let ids): return .tokenIds(ids)
        default: throw BundleError("\(Manifest.casesFile): expected a text or token ids")
        }
    }

    /// The name of an image file.
    func image() throws -> String {
        switch form {
        case .image(let file), .labelled(let file, _): return file
        default: throw BundleError("\(Manifest.casesFile): expected an image")
        }
    }
}

/// The reference's answer.
enum ExpectedAnswer: Equatable {
    case scores([ClassificationResult.Entry])
    case spans([AnswerSpan])
    case entities([Entity])
    case fills([Fill])
    case transcript(text: String, prompt: [Int], tokens: [Int])
    /// The program's output itself.
    case output
}

/// How far a bundle may be from the reference.
struct Tolerances: Equatable {
    /// Of a program's output, as a fraction of the reference output's largest absolute value.
    let output: Double
    /// Of a probability, or of a component of a normalised embedding, absolute.
    let score: Double
}

/// One input on its recorded way through the reference.
struct Case {
    let program: String
    let raw: StoredInput
    let expected: ExpectedAnswer
    /// The program's inputs by name; of audio a sampled part, of images 8-bit values.
    let inputs: [String: Tensor]
    /// The reference's outputs by name; of speech sampled parts, and `logits` row by row.
    let outputs: [String: Tensor]
}

/// Recorded vectors: cases.json and tensors.safetensors of a bundle.
struct Vectors {
    private static let maxCasesBytes = 16 << 20
    /// What is kept of a long tensor of speech.
    static let sampledValues = 512

    let cases: [Case]
    let tolerances: Tolerances

    /// The cases of a bundle, each with exactly the tensors that its program declares.
    ///
    /// - Throws: `BundleError`: there are none, or they do not follow BUNDLE.md.
    init(_ bundle: ModelBundle) throws {
        let manifest = bundle.manifest
        guard manifest.files[Manifest.casesFile] != nil else {
            throw BundleError("the bundle \(manifest.name) has no recorded vectors: convert it again to test it")
        }
        let document = try StrictJson.parse(
            try bundle.readBytes(Manifest.casesFile), file: Manifest.casesFile, maxBytes: Self.maxCasesBytes)
        let record = try Record(document, at: Manifest.casesFile, keys: ["cases", "tolerances"])
        let found = try record.value("tolerances")
        let tolerances = try Record(found.0, at: found.path, keys: ["output", "score"])
        self.tolerances = Tolerances(
            output: try tolerances.number("output", "0 to 1") { (0...1).contains($0) },
            score: try tolerances.number("score", "0 to 1") { (0...1).contains($0) }
        )
        let reader = CaseReader(manifest)
        var tensors = try Safetensors.parse(try bundle.readBytes(Manifest.tensorsFile), file: Manifest.tensorsFile)
        var index = 0
        cases = try record.list("cases", count: 1...1000) { value, path in
            defer { index += 1 }
            return try reader.read(value, path, index, &tensors)
        }
        if let extra = tensors.keys.min() {
            throw BundleError("\(Manifest.tensorsFile): unknown tensor \(shown(extra))")
        }
        // A program without a case would pass every verification unseen.
        for program in reader.programsWithCases where !cases.contains(where: { $0.program == program }) {
            throw BundleError("\(Manifest.casesFile): no case runs the program '\(program)'")
        }
    }

    /// 512 values spread evenly over a tensor, or all of a smaller one: enough to see that it is another.
    static func sampled(_ values: [Double]) -> [Double] {
        guard values.count > sampledValues else { return values }
        return (0..<sampledValues).map { values[$0 * values.count / sampledValues] }
    }
}

/// Reads the entries of cases.json and takes their tensors.
private struct CaseReader {
    private let manifest: Manifest

    init(_ manifest: Manifest) { self.manifest = manifest }

    private var speech: Transcription? {
        if case .transcription(let head) = manifest.postprocessing { head } else { nil }
    }

    /// All programs, or of speech those that encode.
    var programsWithCases: [String] { speech?.buckets.map(\.encode) ?? manifest.programs.map(\.name) }

    func read(_ value: JsonValue, _ path: String, _ index: Int, _ tensors: inout [String: Tensor]) throws -> Case {
        let record = try Record(value, at: path, keys: ["expected", "input", "program"])
        let name = try record.text("program", count: 1...64)
        guard let program = manifest.programs.first(where: { $0.name == name }), programsWithCases.contains(name) else {
            throw BundleError("\(path): unknown program \(shown(name))")
        }
        let raw = try input(try record.value("input"))
        let expected = try answer(try record.value("expected"), program, raw)
        let specs = recorded(program, expected)
        let inputs = try take(specs.inputs, index, &tensors)
        if speech == nil { try checkNumbers(inputs, program, index) }
        return Case(
            program: name, raw: raw, expected: expected,
            inputs: inputs,
            outputs: try take(specs.outputs, index, &tensors)
        )
    }

    /// Token ids, masks and types number rows of tables, and not every engine looks how many there are.
    private func checkNumbers(_ inputs: [String: Tensor], _ program: ProgramSpec, _ index: Int) throws {
        for (name, tensor) in inputs {
            guard let largest = manifest.largestNumber(program, name) else { continue }
            guard tensor.doubles.allSatisfy({ $0 >= 0 && $0 <= Double(largest) }) else {
                throw BundleError("\(Manifest.tensorsFile): \(index)/\(name): expected numbers from 0 to \(largest)")
            }
        }
    }

    private func input(_ found: (JsonValue, path: String)) throws -> StoredInput {
        let optional = ["text", "pair", "token_ids", "image", "labels", "audio", "samples"]
        let record = try Record(found.0, at: found.path, keys: [], optional: optional)
        let keys = optional.filter(record.has)
        switch (manifest.preprocessing, keys) {
        case (.text, ["text"]), (.imageText, ["text"]):
            return StoredInput(form: .text(try record.text("text", count: 0...200_000)))
        case (.text, ["text", "pair"]):
            let pair = try record.text("pair", count: 0...200_000)
            return StoredInput(form: .pair(try record.text("text", count: 0...200_000), pair))
        case (.text, ["token_ids"]):
            return StoredInput(form: .tokenIds(try tokens(record, "token_ids", 1...100_000)))
        case (.image, ["image"]), (.imageText, ["image"]):
            return StoredInput(form: .image(try file(record, "image", ".png")))
        case (.imageText, ["image", "labels"]):
            let labels = try record.list("labels", count: 1...1000) { try Record.text($0, $1, count: 1...500) }
            return StoredInput(form: .labelled(image: try file(record, "image", ".png"), labels: labels))
        case (.audio, ["audio", "samples"]):
            let samples = try record.integer("samples", 0...100_000_000)
            return StoredInput(form: .audio(file: try file(record, "audio", ".wav"), samples: samples))
        default:
            throw BundleError("\(found.path): expected what \(manifest.task.rawValue) takes, found \(keys)")
        }
    }

    private func file(_ record: Record, _ key: String, _ ending: String) throws -> String {
        try record.text(key, "a listed file vectors/*\(ending)") { name in
            name.hasPrefix("vectors/") && name.hasSuffix(ending) && manifest.files[name] != nil
        }
    }

    private func tokens(_ record: Record, _ key: String, _ count: ClosedRange<Int>) throws -> [Int] {
        try record.list(key, count: count) { try Record.integer($0, $1, 0...Int(Int32.max)) }
    }

    private func answer(
        _ found: (JsonValue, path: String), _ program: ProgramSpec, _ raw: StoredInput
    ) throws -> ExpectedAnswer {
        switch manifest.postprocessing {
        case .spans:
            guard case .pair(_, let context) = raw.form else {
                throw BundleError("\(found.path): expected a question as text and its context as pair")
            }
            let record = try Record(found.0, at: found.path, keys: ["answers"])
            return .spans(
                try record.list("answers", count: 0...100) { value, path in
                    let record = try Record(value, at: path, keys: ["end", "score", "start", "text"])
                    let (text, start, end) = try place(record, path, context)
                    let score = try record.number("score", "0 to 4096") { (0...4096).contains($0) }
                    return AnswerSpan(text: text, start: start, end: end, score: score)
                })
        case .entities(let head):
            guard case .text(let text) = raw.form else { throw BundleError("\(found.path): expected one text") }
            let record = try Record(found.0, at: found.path, keys: ["entities"])
            let known = Set(
                head.labels.flatMap { label -> [ExactString] in
                    let parts = label.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
                    return [ExactString(label), ExactString(String(parts.last ?? ""))]
                })
            return .entities(
                try record.list("entities", count: 0...100_000) { value, path in
                    let record = try Record(value, at: path, keys: ["end", "label", "score", "start", "text"])
                    let (found, start, end) = try place(record, path, text)
                    let score = try record.number("score", "0 to 1") { (0...1).contains($0) }
                    let label = try record.text("label", "a label of the manifest") { known.contains(ExactString($0)) }
                    return Entity(text: found, label: label, start: start, end: end, score: score)
                })
        case .fills(let head):
            guard case .text(let text) = raw.form, text.range(of: head.maskToken, options: .literal) != nil else {
                throw BundleError("\(found.path): expected one text with \(shown(head.maskToken))")
            }
            let record = try Record(found.0, at: found.path, keys: ["fills"])
            return .fills(
                try record.list("fills", count: 1...100_000) { value, path in
                    let record = try Record(value, at: path, keys: ["score", "text", "token"], optional: ["mask"])
                    return Fill(
                        token: try record.integer("token", 0...Int(Int32.max)),
                        text: try record.text("text", count: 0...200_000),
                        score: try record.number("score", "0 to 1") { (0...1).contains($0) },
                        mask: record.has("mask") ? try record.integer("mask", 0...1_000_000) : 0
                    )
                })
        case .embedding, .score:
            _ = try Record(found.0, at: found.path, keys: [])
            return .output
        case .classification(let head): return try scores(found, of: head.labels)
        case .similarity:
            guard case .labelled(_, let labels) = raw.form else {
                _ = try Record(found.0, at: found.path, keys: [])
                return .output
            }
            return try scores(found, of: labels)
        case .transcription(let head):
            let record = try Record(found.0, at: found.path, keys: ["prompt", "text", "tokens"])
            let prompt = try tokens(record, "prompt", 1...1000)
            let said = try tokens(record, "tokens", 0...100_000)
            let rows = head.buckets.first { $0.encode == program.name }?.rows ?? 0
            guard (prompt + said).allSatisfy({ $0 < head.vocabSize }), prompt.count + said.count <= rows,
                prompt.count <= head.prefillTokens
            else {
                throw BundleError("\(found.path): expected at most \(rows) tokens below \(head.vocabSize)")
            }
            return .transcript(text: try record.text("text", count: 0...200_000), prompt: prompt, tokens: said)
        }
    }

    private func scores(_ found: (JsonValue, path: String), of known: [String]) throws -> ExpectedAnswer {
        let record = try Record(found.0, at: found.path, keys: ["labels", "scores"])
        let labels = try record.list("labels", count: 1...100_000) { try Record.text($0, $1) }
        let scores = try record.list("scores", count: labels.count...labels.count) { value, path in
            try Record.number(value, path, "0 to 1") { (0...1).contains($0) }
        }
        guard labels.count == known.count, Set(labels.map(ExactString.init)) == Set(known.map(ExactString.init)) else {
            throw BundleError("\(found.path): expected a score for each of the labels")
        }
        return .scores(zip(labels, scores).map { ClassificationResult.Entry(label: $0, score: $1) })
    }

    /// A place in a text, with what stands there.
    private func place(_ record: Record, _ path: String, _ text: String) throws -> (String, Int, Int) {
        let scalars = Array(text.unicodeScalars)
        let (start, end) = (try record.integer("start", 0...200_000), try record.integer("end", 0...200_000))
        let found = try record.text("text", count: 0...200_000)
        guard start <= end, end <= scalars.count, Array(found.unicodeScalars) == Array(scalars[start..<end]) else {
            throw BundleError("\(path): expected what stands in the text from \(start) to \(end)")
        }
        return (found, start, end)
    }

    /// The tensors that a case has: its program's, images' pixels in 8 bits; of speech parts of them and of the logits.
    private func recorded(
        _ program: ProgramSpec, _ expected: ExpectedAnswer
    ) -> (inputs: [TensorSpec], outputs: [TensorSpec]) {
        if manifest.preprocessing.pixels != nil {
            let levels = program.inputs.map {
                TensorSpec(name: $0.name, dtype: $0.dtype == .float32 ? .uint8 : $0.dtype, shape: $0.shape)
            }
            return (levels, program.outputs)
        }
        guard let speech, case .transcript(_, _, let tokens) = expected else {
            return (program.inputs, program.outputs)
        }
        let width = min(speech.vocabSize, Vectors.sampledValues)
        let logits = TensorSpec(name: "logits", dtype: .float32, shape: [tokens.count + 1, width])
        return (program.inputs.map(part), program.outputs.map(part) + [logits])
    }

    private func part(_ spec: TensorSpec) -> TensorSpec {
        TensorSpec(name: spec.name, dtype: spec.dtype, shape: [min(spec.count, Vectors.sampledValues)])
    }

    /// Remove a case's tensors from the file's and check them against the manifest.
    private func take(_ specs: [TensorSpec], _ index: Int, _ tensors: inout [String: Tensor]) throws -> [String: Tensor]
    {
        var taken: [String: Tensor] = [:]
        for spec in specs {
            let key = "\(index)/\(spec.name)"
            guard let tensor = tensors.removeValue(forKey: key) else {
                throw BundleError("\(Manifest.tensorsFile): the tensor '\(key)' is missing")
            }
            guard tensor.matches(spec), tensor.doubles.allSatisfy(\.isFinite) else {
                throw BundleError(
                    "\(Manifest.tensorsFile): \(key): expected finite \(spec.dtype.rawValue) \(spec.shape), found \(tensor.summary)"
                )
            }
            taken[spec.name] = tensor
        }
        return taken
    }
}
