package org.edgeformer.core.decoding

private const val LONGEST_PERIOD = 40

/** A loop is text that stands there so often in a row; refrains of songs rarely do. */
private const val REPEATS = 4

/** Tokens that a loop has at least: "no no no no no" is said. */
private const val SHORTEST_LOOP = 16

/**
 * The period of the loop that the tokens end with, 0 if there is none: a decoder that has lost the audio says the same
 * again and again (Radford et al. 2022, section 4.5).
 *
 * @param stretches of audio between pauses. Who says the same again and again pauses in between, so text that stands
 *   there no more often than that is no loop.
 */
internal fun loopPeriod(tokens: List<Int>, stretches: Int = 0): Int {
    val count = tokens.size
    for (period in 1..minOf(LONGEST_PERIOD, count / REPEATS)) {
        val needed = maxOf(SHORTEST_LOOP, period * maxOf(REPEATS, stretches + 1))
        if (needed > count) continue
        if ((1..needed - period).all { tokens[count - it] == tokens[count - it - period] }) return period
    }
    return 0
}
