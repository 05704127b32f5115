import Foundation

/// What a decoder is fed before it speaks: language and task (Radford et al. 2022, figure 1).
struct Prompt: Equatable {
    let tokens: [Int]

    /// A prompt that was recorded.
    init(tokens: [Int]) { self.tokens = tokens }

    /// The tokens before a transcript in a language, as "en".
    init(_ spec: SpeechTokens, _ options: TranscribeOptions, language: String) throws {
        var fed = [spec.start]
        if !spec.languages.isEmpty {
            guard let token = spec.languages[language] else { throw InputError("language \(shown(language)): unknown") }
            fed.append(token)
            fed += [options.task == .translate ? spec.translate : spec.transcribe].compactMap { $0 }
        }
        if !options.timestamps { fed.append(spec.noTimestamps) }
        tokens = fed
    }

    /// Refuse a language or task that the model does not know.
    ///
    /// - Throws: `InputError` with what the model knows.
    static func check(_ options: TranscribeOptions, _ spec: SpeechTokens) throws {
        if spec.languages.isEmpty {
            guard options.language == nil || options.language == "en", options.task == .transcribe else {
                throw InputError("this model knows English only, and does not translate")
            }
            return
        }
        if let language = options.language, spec.languages[language] == nil {
            throw InputError("language \(shown(language)): \(knownLanguages(spec))")
        }
        guard options.task == .transcribe || spec.translate != nil else {
            throw InputError("this model was not made to translate")
        }
    }

    /// What a model knows in place of a language, and what to do where its bundle was made for one.
    private static func knownLanguages(_ spec: SpeechTokens) -> String {
        let known = spec.languages.keys.sorted().joined(separator: ", ")
        if spec.languages.count > 1 { return "this model knows \(known)" }
        return "this bundle was made for \(known) alone; convert the model again with --language any for all"
    }
}

/// A decoder that has been fed a prompt.
struct Context {
    /// Of the next token, which is also how many rows the prompt takes.
    let position: Int
    /// (L) sees the prompt's rows.
    let mask: [Float]
    /// (V) what may come first.
    let logits: [Float]
    /// (V) what may follow the token that starts a transcript.
    let startLogits: [Float]

    /// Feed a prompt, from the first row on. A short part comes first, so that the last calls are full ones.
    init(_ decoder: any SpeechDecoder, _ prompt: Prompt) throws {
        let tokens = prompt.tokens
        var mask = Rows.allHidden(decoder.rows)
        var (startLogits, logits): ([Float], [Float]) = ([], [])
        var done = 0
        while done < tokens.count {
            let rest = (tokens.count - done) % decoder.prefillTokens
            let size = rest == 0 ? decoder.prefillTokens : rest
            let part = Array(tokens[done..<done + size])
            let (atStart, last): (DecoderOutput, DecoderOutput)
            if size == 1 {
                last = try decoder.step(part[0], position: done, row: done, mask: mask)
                atStart = last
            } else {
                (atStart, last) = try decoder.prefill(
                    part, position: done, row: done, mask: mask, wanted: (0, size - 1))
            }
            // The start is the prompt's first token.
            if done == 0 { startLogits = atStart.logits }
            logits = last.logits
            for row in done..<done + size { mask[row] = Rows.seen }
            done += size
        }
        (position, self.mask, self.logits, self.startLogits) = (done, mask, logits, startLogits)
    }

    /// A token's probability right after the start; nil without a token.
    ///
    /// - Throws: `EngineError`: the logits hold NaN or infinity.
    func probabilityAtStart(_ token: Int?) throws -> Float? {
        guard let token else { return nil }
        let largest = startLogits.max() ?? 0
        let sum = startLogits.reduce(0.0) { $0 + Double(exp($1 - largest)) }
        let probability = Float(Double(exp(startLogits[token] - largest)) / sum)
        guard probability.isFinite else { throw LogitRules.notFinite }
        return probability
    }
}

/// The likeliest of a multilingual model's languages. The decoder has encoded a recording and is fed the start alone.
func detectLanguage(_ decoder: any SpeechDecoder, _ tokens: SpeechTokens) throws -> String? {
    let mask = Rows.allHidden(decoder.rows)
    let logits = try decoder.step(tokens.start, position: 0, row: 0, mask: mask).logits
    var best: (code: String, logit: Float)?
    for (code, token) in tokens.languages.sorted(by: { $0.key < $1.key })
    where logits[token] > best?.logit ?? -.infinity {
        best = (code, logits[token])
    }
    return best?.code
}
