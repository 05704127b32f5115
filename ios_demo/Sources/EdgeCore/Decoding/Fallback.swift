/// A window's transcript and how good it seems. On a phone the first try counts: there is no sampling at higher temperatures.
struct Decoded {
    /// The tokens; none where the window is silence.
    let hypothesis: Hypothesis
    /// Of the tokens.
    let text: String
    /// nil where the model has no token for it.
    let noSpeechProbability: Float?
    /// Nobody speaks: the text was improbable and its absence probable.
    let isSilent: Bool
    /// The text is improbable or ended in a loop: there is no other try here, so it is marked.
    let isDoubtful: Bool

    /// Decode a window. Improbable text where nobody seems to speak is dropped; a loop at the end is said once.
    ///
    /// - Throws: `EngineError`: the logits hold NaN or infinity.
    init(_ search: Greedy, _ tokenizer: SpeechTokenizer, _ options: TranscribeOptions) throws {
        noSpeechProbability = try search.context.probabilityAtStart(search.tokens.noSpeech)
        var found = try search.follow()
        let isImprobable = found.meanLogProbability < options.logProbabilityThreshold
        isSilent = isImprobable && (noSpeechProbability.map { $0 > options.noSpeechThreshold } ?? false)
        isDoubtful = !isSilent && (isImprobable || found.looped)
        if isSilent {
            (found.tokens, found.logProbabilities) = ([], [])
        } else if found.looped {
            Self.cutLoop(&found, firstTimestamp: search.tokens.firstTimestamp)
        }
        hypothesis = found
        text = try tokenizer.text(found.tokens)
    }

    /// Timestamps are no part of loops.
    private static func cutLoop(_ found: inout Hypothesis, firstTimestamp: Int) {
        let places = found.tokens.indices.filter { found.tokens[$0] < firstTimestamp }
        let said = places.map { found.tokens[$0] }
        let period = Repetition.loopPeriod(said)
        guard period > 0 else { return }
        var kept = said.count
        while kept > period, said[kept - 1] == said[kept - 1 - period] { kept -= 1 }
        let end = places[kept - 1] + 1
        found.tokens = Array(found.tokens[..<end])
        found.logProbabilities = Array(found.logProbabilities[..<end])
    }
}
