/// A window's transcript and how good it seems. On a phone the first try counts: there is no sampling at higher temperatures.
struct Decoded {
    /// The tokens; none where the window is silence.
    let hypothesis: Hypothesis
    /// Of the tokens.
    let text: String
    /// nil where the model has no token for it.
    let noSpeechProbability: Float?
    /// Nobody speaks: the text was improbable and its absence probable, or it was little for its audio.
    let isSilent: Bool
    /// The text is improbable or ended in a loop: there is no other try here, so it is marked.
    let isDoubtful: Bool

    /// Decode a window. Improbable text where nobody seems to speak is dropped; a loop at the end is said once.
    ///
    /// `soundingSeconds` are those of the window's audio, without its pauses.
    ///
    /// - Throws: `EngineError`: the logits hold NaN or infinity.
    init(
        _ search: Greedy, _ tokenizer: SpeechTokenizer, _ options: TranscribeOptions, soundingSeconds: Double
    ) throws {
        noSpeechProbability = try search.context.probabilityAtStart(search.tokens.noSpeech)
        var found = try search.follow()
        let likelihood = found.meanLogProbability
        let isUnsure = likelihood < options.logProbabilityThreshold || found.looped
        if found.looped { Self.cutLoop(&found, firstTimestamp: search.tokens.firstTimestamp) }
        let said = try tokenizer.text(found.tokens)
        isSilent = Self.standsForNoSpeech(
            said, likelihood, noSpeechProbability, isUnsure, options, soundingSeconds: soundingSeconds)
        isDoubtful = !isSilent && isUnsure
        if isSilent { (found.tokens, found.logProbabilities) = ([], []) }
        hypothesis = found
        text = isSilent ? "" : said
    }

    /// Where no speech is nearly certain, and where there is little text for the audio, it need not be as improbable as
    /// other text.
    private static func standsForNoSpeech(
        _ text: String, _ likelihood: Double, _ noSpeech: Float?, _ isUnsure: Bool, _ options: TranscribeOptions,
        soundingSeconds: Double
    ) -> Bool {
        guard let noSpeech else { return false }
        if noSpeech > options.noSpeechThreshold, likelihood < options.logProbabilityThreshold { return true }
        let letters = Double(Spans.letters(of: text))
        let isUnlikelyText = isUnsure || letters < soundingSeconds
        let isSparse = letters < Spans.sparseLettersPerSecond * soundingSeconds
        let isSure = noSpeech > (1 + options.noSpeechThreshold) / 2
        let isLikely = isSparse && noSpeech > options.noSpeechThreshold / (isUnlikelyText ? 12 : 2)
        return likelihood < options.logProbabilityThreshold / 2 && (isSure || isLikely)
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
