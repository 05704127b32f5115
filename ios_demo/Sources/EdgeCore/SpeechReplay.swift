/// Replays a speech bundle's cases: mel, encode, each step with the recorded tokens, and the free text.
final class SpeechReplay: Replay {
    /// Of values around -1 to 2: what another FFT and another order of float32 sums may change.
    private static let melTolerance = 1e-3

    private let bundle: ModelBundle
    private let model: SpeechModel
    private let tolerances: Tolerances
    private let scales: Scales
    private var mel: [Comparison] = []
    private var encode: [Comparison] = []
    private var steps: [[Comparison]] = []
    private var text: [Comparison] = []

    init(_ bundle: ModelBundle, _ model: SpeechModel, _ vectors: Vectors) {
        self.bundle = bundle
        self.model = model
        tolerances = vectors.tolerances
        scales = Scales(vectors.cases.flatMap(comparedOutputs))
    }

    var comparisons: [(stage: String, found: [Comparison])] {
        let wrong = steps.compactMap { $0.firstIndex { !$0.ok } }.min()
        let name = wrong.map { "step \($0)" } ?? "steps"
        return [("mel", mel), ("encode", encode), (name, steps.flatMap { $0 }), ("text", text)]
    }

    func play(_ recorded: Case) throws {
        guard case .audio(let file, let count) = recorded.raw.form,
            case .transcript(let reference, let prompt, let tokens) = recorded.expected,
            let bucket = model.spec.buckets.first(where: { $0.encode == recorded.program })
        else {
            throw BundleError("\(Manifest.casesFile): expected a recording with its transcript")
        }
        let (samples, spectrogram): ([Float], Tensor)
        do {
            samples = try WavSource.recorded(
                try bundle.readBytes(file), sampleRate: model.audio.sampleRate, count: count, file: file)
            spectrogram = try model.mel(samples, bucket)
        } catch let error as InputError {
            throw BundleError("\(Manifest.casesFile): an input cannot be used: \(error.message)")
        }
        let recordedMel = recorded.inputs["mel"]?.doubles ?? []
        mel.append(.of(Vectors.sampled(spectrogram.doubles), recordedMel, tolerance: Self.melTolerance))
        encode.append(compareEncoded(recorded, spectrogram))
        steps.append(compareSteps(recorded, bucket, spectrogram, prompt, tokens))
        text.append(compareText(samples, bucket, reference))
    }

    private func compareEncoded(_ recorded: Case, _ spectrogram: Tensor) -> Comparison {
        let references = recorded.outputs.filter { $0.key != "logits" }
        let outputs: [String: Tensor]
        do {
            outputs = try model.engine.run(recorded.program, ["mel": spectrogram])
        } catch {
            let limits = references.keys.map { scales.limit($0, tolerances.output) }
            return .failed(limits.max() ?? 0, reason: error.localizedDescription)
        }
        let all = references.map { name, reference in
            scales.compare(
                name, Vectors.sampled(outputs[name]?.doubles ?? []), reference.doubles, tolerance: tolerances.output)
        }
        return Comparison.worst(all) ?? .failed(0)
    }

    /// One comparison per step, the recorded tokens fed whatever the bundle itself would choose.
    private func compareSteps(
        _ recorded: Case, _ bucket: AudioBucket, _ spectrogram: Tensor, _ prompt: [Int], _ tokens: [Int]
    ) -> [Comparison] {
        guard let logits = recorded.outputs["logits"] else { return [] }
        let rows = centeredRows(logits)
        var found: [Comparison] = []
        func compare(_ logits: [Float]) {
            let row = centered(Vectors.sampled(logits.map(Double.init)))
            found.append(scales.compare("logits", row, rows[found.count], tolerance: tolerances.output))
        }
        do {
            let decoder = try model.decoder(bucket)
            try decoder.encode(spectrogram)
            let context = try Context(decoder, Prompt(tokens: prompt))
            compare(context.logits)
            var mask = context.mask
            for (offset, token) in tokens.enumerated() {
                let row = prompt.count + offset
                compare(try decoder.step(token, position: row, row: row, mask: mask).logits)
                mask[row] = Rows.seen
            }
        } catch {
            found.append(.failed(scales.limit("logits", tolerances.output), reason: error.localizedDescription))
        }
        return found
    }

    /// Letters that differ, as a fraction of the reference's; one too many in an empty answer is all of them.
    private func compareText(_ samples: [Float], _ bucket: AudioBucket, _ reference: String) -> Comparison {
        let said: String
        do {
            said = try model.plainText(samples, bucket)
        } catch {
            return .failed(tolerances.score, reason: error.localizedDescription)
        }
        let expected = letters(reference)
        let share = Double(editDistance(letters(said), expected)) / Double(max(expected.count, 1))
        return Comparison(maxAbs: share, cosine: nil, tolerance: tolerances.score, ok: share <= tolerances.score)
    }

    /// The letters and digits of a text in lower case: a comma more or less is no other answer.
    private func letters(_ text: String) -> [Character] {
        text.lowercased().filter { $0.isLetter || $0.isNumber }.map { $0 }
    }

    /// How many characters have to be changed, put in or taken out (Levenshtein 1966).
    private func editDistance(_ found: [Character], _ reference: [Character]) -> Int {
        var row = Array(0...reference.count)
        for (i, character) in found.enumerated() {
            var above = row[0]
            row[0] = i + 1
            for (j, other) in reference.enumerated() {
                (above, row[j + 1]) = (
                    row[j + 1], min(row[j + 1] + 1, row[j] + 1, above + (character == other ? 0 : 1))
                )
            }
        }
        return row[reference.count]
    }
}

/// A case's outputs as they are compared: logits row by row.
private func comparedOutputs(_ recorded: Case) -> [[String: [Double]]] {
    let rows = recorded.outputs["logits"].map(centeredRows) ?? []
    return rows.map { ["logits": $0] } + [recorded.outputs.filter { $0.key != "logits" }.mapValues(\.doubles)]
}

/// The rows of logits (steps, values), each less its mean: what all logits have in common changes no probability.
private func centeredRows(_ logits: Tensor) -> [[Double]] {
    let (width, values) = (logits.shape[1], logits.doubles)
    return (0..<logits.shape[0]).map { centered(Array(values[$0 * width..<($0 + 1) * width])) }
}

private func centered(_ logits: [Double]) -> [Double] {
    let mean = logits.reduce(0, +) / Double(max(logits.count, 1))
    return logits.map { $0 - mean }
}
