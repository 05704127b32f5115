/// The structure of a manifest: what manifest.schema.json says, key by key. `ManifestChecks` does the rest.
enum ManifestReader {
    private static let int32 = Int(Int32.max)

    static func manifest(_ value: JsonValue) throws -> Manifest {
        let record = try Record(
            value, at: Manifest.fileName,
            keys: [
                "attention", "family", "files", "format_version", "license", "name", "operators", "postprocessing",
                "precision", "preprocessing", "programs", "recipe", "requires", "source", "target", "task", "toolchain",
            ], optional: ["packed"])
        if record.has("packed") {  // it answers several texts at a time, which nothing here does
            let (packed, path) = try record.value("packed")
            _ = try program(packed, path)
        }
        _ = try record.integer("format_version", Manifest.formatVersion...Manifest.formatVersion)
        return Manifest(
            name: try record.word("name", longest: 128),
            family: try record.word("family"),
            task: try record.choice("task"),
            target: try record.choice("target"),
            precision: try record.word("precision"),
            license: try record.optional("license") { try $0.text($1, count: 1...200) },
            requires: try requirements(record.value("requires")),
            source: try source(record.value("source")),
            recipe: try recipe(record.value("recipe")),
            attention: try record.word("attention"),
            toolchain: table(
                try record.members("toolchain", count: 0...100) { key, value, path in
                    try checkKey(key, path, longest: 100)
                    return try Record.text(value, path, count: 1...100)
                }),
            programs: try record.list("programs", count: 1...64, program),
            preprocessing: try preprocessing(record.value("preprocessing")),
            postprocessing: try postprocessing(record.value("postprocessing")),
            operators: table(
                try record.members("operators", count: 0...10_000) { key, value, path in
                    try checkKey(key, path, longest: 200)
                    return try Record.integer(value, path, 1...1_000_000_000)
                }),
            files: table(
                try record.members("files", count: 1...10_000) { key, value, path in
                    try Names.check(key)
                    return try fileEntry(value, path)
                })
        )
    }

    /// By name. Where names are equal but for their Unicode form, the last one stays: they are only shown.
    private static func table<Value>(_ members: [(key: String, value: Value)]) -> [String: Value] {
        Dictionary(members.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
    }

    private static func checkKey(_ key: String, _ path: String, longest: Int) throws {
        _ = try Record.text(.string(key), path, count: 1...longest)
    }

    private static func fileEntry(_ value: JsonValue, _ path: String) throws -> FileEntry {
        let record = try Record(value, at: path, keys: ["sha256", "size"])
        return FileEntry(sha256: try sha256(record, "sha256"), size: try record.integer("size", 0...4_294_967_295))
    }

    private static func sha256(_ record: Record, _ key: String) throws -> String {
        try record.text(key, "64 lower-case hexadecimal digits") { text in
            text.utf8.count == 64 && text.utf8.allSatisfy { isDigit($0) || (0x61...0x66).contains($0) }
        }
    }

    private static func requirements(_ found: (JsonValue, path: String)) throws -> Requirements {
        let record = try Record(found.0, at: found.path, keys: ["android_api", "ios", "macos", "runtime"])
        return Requirements(
            runtime: try record.text("runtime", "a version x.y.z") {
                isVersion($0, parts: 3...3, digits: 6, zeros: false)
            },
            ios: try record.optional("ios", systemVersion),
            macos: try record.optional("macos", systemVersion),
            androidApi: try record.optional("android_api") { try $0.integer($1, 1...1000) }
        )
    }

    private static func systemVersion(_ record: Record, _ key: String) throws -> String {
        try record.text(key, "a version as 18.0") { isVersion($0, parts: 1...3, digits: 4, zeros: true) }
    }

    /// Whether a text is numbers with dots between; `zeros`: they may begin with 0.
    private static func isVersion(_ text: String, parts: ClosedRange<Int>, digits: Int, zeros: Bool) -> Bool {
        let found = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return parts.contains(found.count)
            && found.allSatisfy { part in
                (1...digits).contains(part.count) && part.allSatisfy(isDigit)
                    && (zeros || part.count == 1 || part.first != UInt8(ascii: "0"))
            }
    }

    private static func source(_ found: (JsonValue, path: String)) throws -> Source {
        let record = try Record(found.0, at: found.path, keys: ["id", "revision", "weights_sha256"])
        return Source(
            id: try record.text("id", count: 1...500),
            revision: try record.optional("revision") { try $0.text($1, count: 1...200) },
            weightsSha256: try sha256(record, "weights_sha256")
        )
    }

    private static func recipe(_ found: (JsonValue, path: String)) throws -> Recipe {
        let record = try Record(found.0, at: found.path, keys: ["activations", "embeddings", "name", "weights"])
        return Recipe(
            name: try record.word("name"),
            weights: try record.word("weights"),
            activations: try record.word("activations"),
            embeddings: try record.word("embeddings")
        )
    }

    private static func program(_ value: JsonValue, _ path: String) throws -> ProgramSpec {
        let record = try Record(value, at: path, keys: ["entry", "file", "inputs", "name", "outputs"])
        return ProgramSpec(
            name: try record.word("name"),
            file: try record.text("file"),
            entry: try record.text("entry", "a name of at most 128 letters, digits, . _ -") { text in
                // As a word, but it may begin with an underscore.
                isWord(text.hasPrefix("_") ? "a" + text.dropFirst() : text, longest: 128)
            },
            inputs: try record.list("inputs", count: 1...256, tensor),
            outputs: try record.list("outputs", count: 1...256, tensor)
        )
    }

    private static func tensor(_ value: JsonValue, _ path: String) throws -> TensorSpec {
        let record = try Record(value, at: path, keys: ["dtype", "name", "shape"])
        let dtype: DType = try record.choice("dtype")
        guard dtype != .uint8 else { throw BundleError("\(path).dtype: expected float32 or int32, found 'uint8'") }
        let shape = try record.list("shape", count: 0...8) { try Record.integer($0, $1, 1...int32) }
        return TensorSpec(name: try record.word("name"), dtype: dtype, shape: shape)
    }

    /// The member `kind` of an object, before its other keys are known.
    private static func kind(_ found: (JsonValue, path: String)) throws -> String {
        guard case .object(let object) = found.0, case .string(let kind)? = object["kind"] else {
            throw BundleError("\(found.path): expected an object with a kind")
        }
        return kind
    }

    private static func preprocessing(_ found: (JsonValue, path: String)) throws -> Preprocessing {
        switch try kind(found) {
        case "text": return .text(try text(found))
        case "image": return .image(try image(found))
        case "image-text": return .imageText(try imageText(found))
        case "audio": return .audio(try audio(found))
        case let other:
            throw BundleError(
                "\(found.path).kind: expected one of text, image, image-text, audio, found \(shown(other))")
        }
    }

    private static func postprocessing(_ found: (JsonValue, path: String)) throws -> Postprocessing {
        switch try kind(found) {
        case "classification": return .classification(try classification(found))
        case "embedding": return .embedding(try embedding(found))
        case "score": return .score(try score(found))
        case "similarity": return .similarity(try similarity(found))
        case "spans": return .spans(try spans(found))
        case "entities": return .entities(try entities(found))
        case "fills": return .fills(try fills(found))
        case "transcription": return .transcription(try transcription(found))
        case let other:
            throw BundleError(
                "\(found.path).kind: expected one of classification, embedding, score, similarity, fills, spans, entities, transcription, found "
                    + shown(other))
        }
    }

    private static func text(_ found: (JsonValue, path: String)) throws -> TextPreprocessing {
        let record = try Record(found.0, at: found.path, keys: ["kind", "pad_token_id", "tokenizer", "vocab_size"])
        return TextPreprocessing(
            tokenizer: try record.optional("tokenizer") { try $0.text($1) },
            padTokenId: try record.integer("pad_token_id", 0...int32),
            vocabSize: try record.optional("vocab_size") { try $0.integer($1, 1...int32 + 1) }
        )
    }

    static func image(_ found: (JsonValue, path: String)) throws -> ImagePreprocessing {
        let record = try Record(
            found.0, at: found.path,
            keys: [
                "channels", "crop", "height", "interpolation", "kind", "layout", "mean", "resize_short_side", "std",
                "width",
            ])
        for (key, only) in [("channels", "RGB"), ("layout", "NCHW")] {
            _ = try record.text(key, only) { $0 == only }
        }
        return try ImagePreprocessing(
            height: try record.integer("height", 1...4096),
            width: try record.integer("width", 1...4096),
            resizeShortSide: try record.integer("resize_short_side", 1...8192),
            interpolation: try record.choice("interpolation"),
            crop: try record.choice("crop"),
            mean: try record.list("mean", count: 3...3) { value, path in
                try Record.number(value, path, "-1000 to 1000") { (-1000...1000).contains($0) }
            },
            std: try record.list("std", count: 3...3) { value, path in
                try Record.number(value, path, "0.0001 to 1000") { (0.0001...1000).contains($0) }
            }
        )
    }

    private static func imageText(_ found: (JsonValue, path: String)) throws -> ImageTextPreprocessing {
        let record = try Record(found.0, at: found.path, keys: ["image", "kind", "text"])
        let (image, text) = (try record.value("image"), try record.value("text"))
        guard try kind(image) == "image", try kind(text) == "text" else {
            throw BundleError("\(found.path): expected an image of kind image, and a text of kind text")
        }
        return ImageTextPreprocessing(image: try Self.image(image), text: try Self.text(text))
    }

    private static func similarity(_ found: (JsonValue, path: String)) throws -> Similarity {
        let record = try Record(found.0, at: found.path, keys: ["activation", "bias", "dim", "kind", "scale"])
        return Similarity(
            dim: try record.integer("dim", 1...1_000_000),
            scale: try record.number("scale", "above 0, at most 1000000") { $0 > 0 && $0 <= 1e6 },
            bias: try record.number("bias", "-1000000 to 1000000") { abs($0) <= 1e6 },
            activation: try record.choice("activation")
        )
    }

    static func audio(_ found: (JsonValue, path: String)) throws -> AudioPreprocessing {
        let record = try Record(
            found.0, at: found.path,
            keys: [
                "dynamic_range", "hop_length", "kind", "log_floor", "mel_filters", "n_fft", "n_mels", "sample_rate",
                "window_seconds",
            ])
        return try AudioPreprocessing(
            sampleRate: try record.integer("sample_rate", 1000...192_000),
            nFft: try record.integer("n_fft", 16...16_384),
            hopLength: try record.integer("hop_length", 8...16_384),
            nMels: try record.integer("n_mels", 1...1024),
            melFilters: try record.text("mel_filters"),
            windowSeconds: try record.integer("window_seconds", 1...600),
            logFloor: try record.number("log_floor", "above 0, at most 1") { $0 > 0 && $0 <= 1 },
            dynamicRange: try record.number("dynamic_range", "above 0, at most 100") { $0 > 0 && $0 <= 100 }
        )
    }

    private static func classification(_ found: (JsonValue, path: String)) throws -> Classification {
        let record = try Record(found.0, at: found.path, keys: ["activation", "kind", "labels"])
        return Classification(
            labels: try record.list("labels", count: 1...100_000) { try Record.text($0, $1, count: 1...500) },
            activation: try record.choice("activation")
        )
    }

    private static func embedding(_ found: (JsonValue, path: String)) throws -> Embedding {
        let record = try Record(found.0, at: found.path, keys: ["dim", "kind", "normalized"])
        return Embedding(dim: try record.integer("dim", 1...1_000_000), normalized: try record.flag("normalized"))
    }

    private static func score(_ found: (JsonValue, path: String)) throws -> Score {
        let record = try Record(found.0, at: found.path, keys: ["activation", "kind"])
        let activation = try record.text("activation", "none or sigmoid") { ["none", "sigmoid"].contains($0) }
        return Score(isSigmoid: activation == "sigmoid")
    }

    private static func spans(_ found: (JsonValue, path: String)) throws -> SpanExtraction {
        let record = try Record(found.0, at: found.path, keys: ["kind", "max_answer_tokens", "stride"])
        return SpanExtraction(
            stride: try record.integer("stride", 0...1_000_000),
            maxAnswerTokens: try record.integer("max_answer_tokens", 1...512)
        )
    }

    private static func entities(_ found: (JsonValue, path: String)) throws -> TokenLabels {
        let record = try Record(
            found.0, at: found.path, keys: ["aggregation", "kind", "labels", "outside", "stride"])
        return TokenLabels(
            labels: try record.list("labels", count: 1...100_000) { try Record.text($0, $1, count: 1...500) },
            outside: try record.list("outside", count: 0...1000) { try Record.text($0, $1, count: 1...500) },
            aggregation: try record.choice("aggregation"),
            stride: try record.integer("stride", 0...1_000_000)
        )
    }

    private static func fills(_ found: (JsonValue, path: String)) throws -> MaskedToken {
        let record = try Record(found.0, at: found.path, keys: ["kind", "mask_token", "mask_token_id"])
        return MaskedToken(
            maskToken: try record.text("mask_token", count: 1...500),
            maskTokenId: try record.integer("mask_token_id", 0...int32)
        )
    }

    static func transcription(_ found: (JsonValue, path: String)) throws -> Transcription {
        let record = try Record(
            found.0, at: found.path,
            keys: [
                "alignment_heads", "buckets", "head_dim", "heads", "kind", "layers", "max_initial_timestamp",
                "prefill_tokens", "seconds_per_timestamp", "state", "suppress", "suppress_at_start", "tokenizer",
                "tokens",
                "vocab_size",
            ])
        return try Transcription(
            tokenizer: try record.text("tokenizer"),
            tokens: try speechTokens(record.value("tokens")),
            suppress: try tokenIds(record, "suppress"),
            suppressAtStart: try tokenIds(record, "suppress_at_start"),
            vocabSize: try record.integer("vocab_size", 1...10_000_000),
            layers: try record.integer("layers", 1...60),
            heads: try record.integer("heads", 1...1024),
            headDim: try record.integer("head_dim", 1...4096),
            alignmentHeads: try record.integer("alignment_heads", 1...4096),
            prefillTokens: try record.integer("prefill_tokens", 2...4096),
            state: try record.choice("state"),
            secondsPerTimestamp: try record.number("seconds_per_timestamp", "above 0, at most 10") {
                $0 > 0 && $0 <= 10
            },
            maxInitialTimestamp: try record.number("max_initial_timestamp", "0 to 600") { (0...600).contains($0) },
            buckets: try record.list("buckets", count: 1...21, bucket)
        )
    }

    private static func tokenIds(_ record: Record, _ key: String) throws -> [Int] {
        try record.list(key, count: 0...100_000) { try Record.integer($0, $1, 0...int32) }
    }

    static func speechTokens(_ found: (JsonValue, path: String)) throws -> SpeechTokens {
        let record = try Record(
            found.0, at: found.path,
            keys: [
                "end", "first_timestamp", "languages", "no_speech", "no_timestamps", "start", "start_of_previous",
                "transcribe", "translate",
            ])
        let id: (Record, String) throws -> Int = { try $0.integer($1, 0...int32) }
        return SpeechTokens(
            start: try id(record, "start"),
            end: try id(record, "end"),
            startOfPrevious: try record.optional("start_of_previous", id),
            noSpeech: try record.optional("no_speech", id),
            noTimestamps: try id(record, "no_timestamps"),
            firstTimestamp: try id(record, "first_timestamp"),
            transcribe: try record.optional("transcribe", id),
            translate: try record.optional("translate", id),
            languages: table(
                try record.members("languages", count: 0...1000) { key, value, path in
                    guard (2...8).contains(key.utf8.count), key.utf8.allSatisfy({ (0x61...0x7A).contains($0) }) else {
                        throw BundleError("\(path): expected a language of 2 to 8 lower-case letters")
                    }
                    return try Record.integer(value, path, 0...int32)
                })
        )
    }

    private static func bucket(_ value: JsonValue, _ path: String) throws -> AudioBucket {
        let record = try Record(value, at: path, keys: ["decode", "encode", "positions", "prefill", "rows", "tail"])
        return AudioBucket(
            positions: try record.integer("positions", 1...100_000),
            tail: try record.integer("tail", 0...100_000),
            rows: try record.integer("rows", 4...100_000),
            encode: try record.word("encode"),
            prefill: try record.word("prefill"),
            decode: try record.word("decode")
        )
    }
}
