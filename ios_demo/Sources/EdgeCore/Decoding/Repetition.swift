/// Loops: a decoder that has lost the audio says the same again and again (Radford et al. 2022, section 4.5).
enum Repetition {
    private static let longestPeriod = 40
    /// A loop is text that stands there so often in a row; refrains of songs rarely do.
    private static let repeats = 4
    /// Tokens that a loop has at least: "no no no no no" is said.
    private static let shortestLoop = 16

    /// The period of the loop that the tokens end with, 0 if there is none.
    ///
    /// `stretches` are those of audio between pauses. Who says the same again and again pauses in between, so text that
    /// stands there no more often than that is no loop.
    static func loopPeriod(_ tokens: [Int], stretches: Int = 0) -> Int {
        let count = tokens.count
        let longest = min(longestPeriod, count / repeats)
        guard longest > 0 else { return 0 }
        return (1...longest).first { period in
            let needed = max(shortestLoop, period * max(repeats, stretches + 1))
            return needed <= count
                && (count - needed + period..<count).reversed().allSatisfy { tokens[$0] == tokens[$0 - period] }
        } ?? 0
    }
}
