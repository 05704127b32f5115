/// What the parts of a manifest must have to do with one another. Every error is a `BundleError`.
enum ManifestChecks {
    private static let textInputs = ["input_ids", "attention_mask", "token_type_ids", TextEncoder.maskPosition]

    static func check(_ manifest: Manifest) throws {
        try checkFiles(manifest)
        for program in manifest.programs { try checkProgram(manifest, program) }
        try checkUnique(manifest.programs.map(\.name), "program")
        try checkTask(manifest)
    }

    private static func fault(_ message: String) -> BundleError { BundleError("\(Manifest.fileName): \(message)") }

    private static func checkUnique(_ names: [String], _ what: String) throws {
        if let name = firstRepeated(names) { throw fault("the \(what) \(shown(name)) occurs twice") }
    }

    private static func checkFiles(_ manifest: Manifest) throws {
        try Names.checkDistinct(manifest.files.keys.sorted() + [Manifest.fileName])
        guard (manifest.files[Manifest.casesFile] == nil) == (manifest.files[Manifest.tensorsFile] == nil) else {
            throw fault("files: \(Manifest.casesFile) and \(Manifest.tensorsFile) belong together, found one of them")
        }
    }

    private static func checkProgram(_ manifest: Manifest, _ program: ProgramSpec) throws {
        guard !Manifest.reservedPrograms.contains(program.name) else {
            throw fault("program \(program.name): this name is reserved")
        }
        try Names.check(program.file)
        let inFolder = manifest.files.keys.contains { $0.hasPrefix(program.file + "/") }
        guard inFolder || manifest.files[program.file] != nil else {
            throw fault(
                "program \(program.name): its file \(shown(program.file)) is neither a file nor a folder of files")
        }
        guard inFolder == (manifest.target == .coreml) else {
            throw fault(
                "program \(program.name): \(shown(program.file)): a Core ML model is a folder, any other a file")
        }
        try checkUnique((program.inputs + program.outputs).map(\.name), "input or output of \(program.name)")
    }

    /// The task, its pre- and post-processing and the programs belong together.
    private static func checkTask(_ manifest: Manifest) throws {
        switch (manifest.task, manifest.preprocessing, manifest.postprocessing) {
        case (.textClassification, .text(let text), .classification(let head)):
            try checkText(text, manifest)
            try checkLabels(head, manifest)
        case (.textEmbedding, .text(let text), .embedding(let head)):
            try checkText(text, manifest)
            try checkWidth(head.dim, manifest)
        case (.textScoring, .text(let text), .score):
            try checkText(text, manifest)
            try checkWidth(1, manifest)
        case (.questionAnswering, .text(let text), .spans(let head)):
            try checkText(text, manifest)
            try checkTokens(text, SpanProbabilities.width, head.stride, manifest)
        case (.tokenClassification, .text(let text), .entities(let head)):
            try checkText(text, manifest)
            try checkUnique(head.labels, "label")
            try checkTokens(text, head.labels.count, head.stride, manifest)
        case (.fillMask, .text(let text), .fills(let head)):
            try checkText(text, manifest)
            try checkFills(text, head, manifest)
        case (.imageClassification, .image(let image), .classification(let head)):
            try checkImage(image, manifest)
            try checkLabels(head, manifest)
        case (.imageEmbedding, .image(let image), .embedding(let head)):
            try checkImage(image, manifest)
            try checkWidth(head.dim, manifest)
        case (.imageText, .imageText(let spec), .similarity(let head)):
            try checkImage(spec.image, manifest, manifest.programs.filter { $0.name == Manifest.imageProgram })
            let texts = manifest.textPrograms
            guard !texts.isEmpty, spec.text.tokenizer != nil else {
                throw fault("image-text needs a tokenizer, and programs for texts")
            }
            try checkText(spec.text, manifest, texts)
            try checkWidth(head.dim, manifest)
        case (.speechRecognition, .audio(let audio), .transcription(let head)):
            try checkSpeech(audio, head, manifest)
        default:
            throw fault("preprocessing and postprocessing are not those of \(manifest.task.rawValue)")
        }
    }

    private static func checkLabels(_ head: Classification, _ manifest: Manifest) throws {
        try checkUnique(head.labels, "label")
        try checkWidth(head.labels.count, manifest)
    }

    /// There is a tokenizer, and every program predicts the token at one position.
    private static func checkFills(_ spec: TextPreprocessing, _ head: MaskedToken, _ manifest: Manifest) throws {
        guard spec.tokenizer != nil, let size = spec.vocabSize else {
            throw fault("preprocessing: fill-mask needs a tokenizer and vocab_size")
        }
        guard head.maskTokenId < size, head.maskTokenId != spec.padTokenId else {
            throw fault("postprocessing.mask_token_id: expected an id that is no padding's")
        }
        try checkWidth(size, manifest)
        for program in manifest.programs
        where !program.inputs.contains(where: { $0.name == TextEncoder.maskPosition }) {
            throw fault("program \(program.name): expected an input \(TextEncoder.maskPosition)")
        }
    }

    /// Every program's only output is as wide as the answer.
    private static func checkWidth(_ width: Int, _ manifest: Manifest) throws {
        for program in manifest.programs {
            guard program.outputs.map(\.shape) == [[1, width]], program.outputs[0].dtype == .float32 else {
                throw fault("program \(program.name): expected one float32 output of shape (1, \(width))")
            }
        }
    }

    /// Every program scores each of its tokens, and neighbouring windows share no more than half of one.
    private static func checkTokens(
        _ spec: TextPreprocessing, _ width: Int, _ stride: Int, _ manifest: Manifest
    ) throws {
        for program in manifest.programs {
            let shape = [1, program.inputs[0].shape[1], width]
            guard program.outputs.map(\.shape) == [shape], program.outputs[0].dtype == .float32 else {
                throw fault("program \(program.name): expected one float32 output of shape \(shape)")
            }
        }
        let longest = manifest.programs.map { $0.inputs[0].shape[1] }.max() ?? 0
        guard stride <= longest / 2 else {
            throw fault("postprocessing.stride: expected at most half of the longest program's \(longest)")
        }
        guard spec.tokenizer != nil else { throw fault("preprocessing.tokenizer: places in a text need one") }
    }

    /// The tokenizer is there, and the programs are buckets of different lengths.
    private static func checkText(
        _ spec: TextPreprocessing, _ manifest: Manifest, _ programs: [ProgramSpec]? = nil
    ) throws {
        let programs = programs ?? manifest.programs
        if let tokenizer = spec.tokenizer, manifest.files[tokenizer] == nil {
            throw fault("preprocessing.tokenizer: \(shown(tokenizer)) is not among files")
        }
        guard spec.padTokenId < spec.vocabSize ?? Int.max else {
            throw fault("preprocessing.pad_token_id is not below vocab_size")
        }
        for program in programs { try checkTextInputs(program) }
        try checkUnique(programs.map { String($0.inputs[0].shape[1]) }, "sequence length")
    }

    private static func checkTextInputs(_ program: ProgramSpec) throws {
        let shape = program.inputs.first { $0.name == "input_ids" }?.shape ?? []
        for tensor in program.inputs {
            guard textInputs.contains(tensor.name) else {
                throw fault(
                    "program \(program.name): unknown input '\(tensor.name)': text has \(textInputs.joined(separator: ", "))"
                )
            }
            guard tensor.dtype == .int32, shape.count == 2, shape[0] == 1, tensor.shape == shape else {
                throw fault("program \(program.name): expected input_ids and other inputs of one shape (1, S) in int32")
            }
        }
    }

    /// There is one program, and its input is what the preprocessing gives.
    private static func checkImage(
        _ spec: ImagePreprocessing, _ manifest: Manifest, _ programs: [ProgramSpec]? = nil
    ) throws {
        let programs = programs ?? manifest.programs
        let expected = TensorSpec(name: Manifest.imageInput, dtype: .float32, shape: [1, 3, spec.height, spec.width])
        guard programs.map(\.name) == [Manifest.imageProgram], programs[0].inputs == [expected] else {
            throw fault(
                "programs: images have one program '\(Manifest.imageProgram)' with one input '\(Manifest.imageInput)', "
                    + "float32 of shape \(expected.shape)")
        }
    }

    /// The files are there, and the programs are those of the buckets, tensor by tensor.
    private static func checkSpeech(_ audio: AudioPreprocessing, _ head: Transcription, _ manifest: Manifest) throws {
        for (key, name) in [
            ("preprocessing.mel_filters", audio.melFilters), ("postprocessing.tokenizer", head.tokenizer),
        ] where manifest.files[name] == nil {
            throw fault("\(key): \(shown(name)) is not among files")
        }
        guard head.largestBucket.positions * audio.samplesPerPosition == audio.windowSamples else {
            throw fault("postprocessing.buckets: the last one must take \(audio.windowSamples) samples")
        }
        let layouts = head.buckets.flatMap { SpeechLayout.programs(of: $0, in: head, nMels: audio.nMels) }
        guard layouts.count == manifest.programs.count,
            Set(layouts.map(\.name)) == Set(manifest.programs.map(\.name))
        else {
            throw fault("programs: expected exactly those of postprocessing.buckets, each once")
        }
        for layout in layouts {
            guard let program = manifest.programs.first(where: { $0.name == layout.name }),
                program.inputs == layout.inputs, program.outputs == layout.outputs
            else {
                throw fault("program \(layout.name): its inputs and outputs are not those that its bucket asks for")
            }
        }
        let largest = head.allTokenIds.max() ?? 0
        guard largest < head.vocabSize else {
            throw fault("postprocessing: the token \(largest) is not below vocab_size")
        }
    }
}

extension Manifest {
    /// The programs that take texts, of a bundle that takes images, too.
    var textPrograms: [ProgramSpec] { programs.filter { $0.name != Self.imageProgram } }

    /// The largest number that an input of integers may hold; nil: any, or it is none of integers.
    ///
    /// `Int32.max`: of token ids whose vocabulary is not known.
    func largestNumber(_ program: ProgramSpec, _ name: String) -> Int? {
        if case .transcription(let head) = postprocessing {
            switch name {
            case "token", "tokens": return head.vocabSize - 1
            case "position", "positions", "row", "rows":
                return (program.inputs.first { $0.name == "mask" }?.shape.last ?? 0) - 1
            case "wanted": return head.prefillTokens - 1
            default: return nil
            }
        }
        let spec: TextPreprocessing
        switch preprocessing {
        case .text(let text): spec = text
        case .imageText(let both) where program.name != Self.imageProgram: spec = both.text
        default: return nil
        }
        return name == "input_ids" ? spec.vocabSize.map { $0 - 1 } ?? Int(Int32.max) : 1
    }
}
