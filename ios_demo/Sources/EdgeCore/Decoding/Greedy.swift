/// One hypothesis, the likeliest token each time. Its tokens lie in the rows behind the prompt, so that a row is a position.
struct Greedy {
    /// Has encoded the audio and been fed the prompt.
    let decoder: any SpeechDecoder
    /// The prompt.
    let context: Context
    /// What may follow.
    let rules: LogitRules
    /// Of the manifest.
    let tokens: SpeechTokens
    /// The longest hypothesis; the slots of the cache may end it sooner.
    let maxTokens: Int
    /// Whether a hypothesis ends when it repeats itself.
    var stopsLoops = true
    /// Of the window's audio between pauses; see `Repetition.loopPeriod`.
    var stretches = 0

    /// Decode until the end.
    ///
    /// - Throws: `EngineError`: the logits hold NaN or infinity.
    func follow() throws -> Hypothesis {
        var found = Hypothesis(tokens: [], logProbabilities: [], ended: false, looped: false)
        var (mask, logits, position) = (context.mask, context.logits, context.position)
        while true {
            rules.apply(&logits, said: found.tokens)
            let token = Self.likeliest(logits)
            let normalizer = try rules.logNormalizer(logits, largest: logits[token])
            found.logProbabilities.append(Double(logits[token]) - normalizer)
            if token == tokens.end {
                found.ended = true
                return found
            }
            found.tokens.append(token)
            found.looped = isLoop(found.tokens)
            if found.looped || found.tokens.count >= maxTokens || position >= decoder.rows { return found }
            logits = try decoder.step(token, position: position, row: position, mask: mask).logits
            mask[position] = Rows.seen
            position += 1
        }
    }

    /// The token of the largest logit (V), the first of equals.
    static func likeliest(_ logits: [Float]) -> Int {
        var best = 0
        for token in logits.indices where logits[token] > logits[best] { best = token }
        return best
    }

    /// Whether text has begun to repeat itself; timestamps in between do not matter.
    private func isLoop(_ said: [Int]) -> Bool {
        guard stopsLoops, let last = said.last, last < tokens.firstTimestamp else { return false }
        return Repetition.loopPeriod(said.filter { $0 < tokens.firstTimestamp }, stretches: stretches) > 0
    }
}
