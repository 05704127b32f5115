package org.edgeformer.core.pipelines

import java.util.Locale
import kotlin.math.exp
import org.edgeformer.core.Aggregation
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.SPAN_ENDS
import org.edgeformer.core.SpanExtraction
import org.edgeformer.core.Tensor
import org.edgeformer.core.TokenLabels
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.Places
import org.edgeformer.core.preprocess.RawText

/** That one question asks for. */
const val MAX_ANSWERS = 100
const val MAX_ANSWER_TOKENS = 512

/** Spans of a window that are looked at beside two for each answer: several may be of the same words. */
private const val SPARE_CANDIDATES = 10
private const val SPECIAL = -1
private const val PAIR = 1

/** What answers with places in a text has in common: windows of the bundle's longest program, and their logits. */
abstract class WindowPipeline<Answer : Measured>(bundle: ModelBundle, engine: Engine) :
    TextPipeline<Answer>(bundle, engine) {
    /** The first window. */
    final override fun prepare(raw: RawText): Prepared = windows(raw)[0]

    /** The answer of an input that is one window. */
    final override fun answer(outputs: Map<String, Tensor>, prepared: Prepared): Answer =
        answerWindows(listOf(outputs), listOf(prepared))

    protected fun cut(text: String, pair: String?, stride: Int): List<Prepared> =
        encoder.windows(text, pair, stride)
            .map { Prepared(it.program, it.inputs, it.truncated, it.places, pair ?: text) }
}

/** The only output's rows, flat, of the tokens that are no padding, finite. */
internal fun tokenLogits(outputs: Map<String, Tensor>, places: Places, width: Int): FloatArray =
    onlyRow(outputs).copyOf(places.size * width)

private fun slice(text: String, start: Int, end: Int): String {
    val first = text.offsetByCodePoints(0, start)
    return text.substring(first, text.offsetByCodePoints(first, end - start))
}

/**
 * What a question may ask for.
 *
 * @property top how many answers.
 * @property unanswerable one of them may be that the text has no answer: an empty one.
 * @property maxAnswerTokens the longest answer; null: as the bundle says.
 */
data class SpanOptions(val top: Int = 1, val unanswerable: Boolean = false, val maxAnswerTokens: Int? = null) {
    init {
        if (top !in 1..MAX_ANSWERS) throw InputError("top: expected 1 to $MAX_ANSWERS answers, found $top")
        if (maxAnswerTokens != null && maxAnswerTokens !in 1..MAX_ANSWER_TOKENS) {
            throw InputError("maxAnswerTokens: expected 1 to $MAX_ANSWER_TOKENS, found $maxAnswerTokens")
        }
    }
}

/** Finds the answers to a question in a context: a pair of texts, the question first. */
class QuestionAnswerer(bundle: ModelBundle, engine: Engine) : WindowPipeline<SpanResult>(bundle, engine) {
    private val head = bundle.manifest.postprocessing as SpanExtraction

    /** Answers one question. */
    fun run(question: String, context: String, options: SpanOptions = SpanOptions()): SpanResult =
        timed(RawText.Pair(question, context)) { outputs, windows -> answers(outputs, windows, options) }

    override fun windows(raw: RawText): List<Prepared> {
        val asked = raw as? RawText.Pair ?: throw InputError("expected a question and its context, a pair of texts")
        if (asked.first.isEmpty()) throw InputError("expected a question, found an empty text")
        if (asked.second.isEmpty()) throw InputError("expected a context, found an empty text")
        return cut(asked.first, asked.second, head.stride)
    }

    override fun answerWindows(outputs: List<Map<String, Tensor>>, windows: List<Prepared>): SpanResult =
        answers(outputs, windows, SpanOptions())

    private fun answers(
        outputs: List<Map<String, Tensor>>,
        windows: List<Prepared>,
        options: SpanOptions,
    ): SpanResult {
        val longest = options.maxAnswerTokens ?: head.maxAnswerTokens
        val found = LinkedHashMap<String, AnswerSpan>()
        var nothing = Double.POSITIVE_INFINITY
        for ((output, window) in outputs.zip(windows)) {
            val (places, source) = window.places!! to window.source!!
            val tokens = SpanProbabilities.of(tokenLogits(output, places, SPAN_ENDS), places)
            nothing = minOf(nothing, tokens.nothing)
            for (span in bestSpans(tokens, longest, 2 * options.top + SPARE_CANDIDATES)) {
                val (first, last) = wholeWords(places, span)
                val (start, end) = places.starts[first] to places.ends[last]
                val text = slice(source, start, end)
                val known = found[text.lowercase(Locale.ROOT)]
                found[text.lowercase(Locale.ROOT)] =
                    known?.copy(score = known.score + span.score) ?: AnswerSpan(text, start, end, span.score)
            }
        }
        val all = found.values + if (options.unanswerable) listOf(AnswerSpan("", 0, 0, nothing)) else emptyList()
        return SpanResult(all.sortedByDescending { it.score }.take(options.top)) // stable
    }

    override fun withStatistics(answer: SpanResult, statistics: Statistics) = answer.copy(statistics = statistics)
}

/**
 * How probably an answer starts at each token of the context and ends there, and that there is none.
 *
 * @property starts of each token; [ends] likewise.
 */
internal class SpanProbabilities(val starts: DoubleArray, val ends: DoubleArray, val nothing: Double) {
    companion object {
        /** From logits, two for each token. The first token, where it is a special one, stands for no answer. */
        fun of(logits: FloatArray, places: Places): SpanProbabilities {
            val columns = (0 until SPAN_ENDS).map { column ->
                val allowed = (0 until places.size).filter {
                    places.texts[it] == PAIR || (it == 0 && places.texts[it] == SPECIAL)
                }
                val scores = softmax(FloatArray(allowed.size) { logits[allowed[it] * SPAN_ENDS + column] })
                val all = DoubleArray(places.size)
                allowed.forEachIndexed { index, row -> all[row] = scores[index] }
                all
            }
            val nothing = columns[0][0] * columns[1][0]
            columns.forEach { it[0] = 0.0 }
            return SpanProbabilities(columns[0], columns[1], nothing)
        }
    }
}

private class TokenSpan(val first: Int, val last: Int, val score: Double)

/** The `count` best spans of more than no probability, best first, of equal ones the earliest. */
private fun bestSpans(tokens: SpanProbabilities, longest: Int, count: Int): List<TokenSpan> {
    val found = ArrayList<TokenSpan>()
    for (first in tokens.starts.indices) {
        if (tokens.starts[first] == 0.0) continue
        for (last in first until minOf(first + longest, tokens.ends.size)) {
            val score = tokens.starts[first] * tokens.ends[last]
            if (score > 0) found.add(TokenSpan(first, last, score))
        }
    }
    return found.sortedByDescending { it.score }.take(count) // stable
}

/** A span of tokens with all of its first and last word that is in the window. */
private fun wholeWords(places: Places, span: TokenSpan): Pair<Int, Int> {
    var (first, last) = span.first to span.last
    while (first > 0 && isSameWord(places, first - 1, first)) first--
    while (last + 1 < places.size && isSameWord(places, last, last + 1)) last++
    return first to last
}

private fun isSameWord(places: Places, one: Int, other: Int) =
    places.words[one] == places.words[other] && places.texts[one] == places.texts[other]

/** Finds the entities of a text. */
class EntityFinder(bundle: ModelBundle, engine: Engine) : WindowPipeline<EntityResult>(bundle, engine) {
    private val head = bundle.manifest.postprocessing as TokenLabels

    /** Answers one text; `aggregation` null: as the bundle says. */
    fun run(text: String, aggregation: Aggregation? = null): EntityResult =
        timed(RawText.Single(text)) { outputs, windows -> entities(outputs, windows, aggregation ?: head.aggregation) }

    override fun windows(raw: RawText): List<Prepared> {
        val text = raw as? RawText.Single ?: throw InputError("expected one text, found a pair of texts or token ids")
        return cut(text.text, null, head.stride)
    }

    override fun answerWindows(outputs: List<Map<String, Tensor>>, windows: List<Prepared>): EntityResult =
        entities(outputs, windows, head.aggregation)

    private fun entities(
        outputs: List<Map<String, Tensor>>,
        windows: List<Prepared>,
        aggregation: Aggregation,
    ): EntityResult {
        var found: List<Labelled> = emptyList()
        var read = 0
        for ((output, window) in outputs.zip(windows)) {
            val places = window.places!!
            val scores = labelProbabilities(tokenLogits(output, places, head.labels.size), head.labels.size)
            var tokens = places.texts.indices.filter { places.texts[it] != SPECIAL }
                .map { Scored(places.starts[it], places.ends[it], scores[it], places.continues[it]) }
            if (aggregation == Aggregation.NONE) { // a token that an earlier window has is that window's
                tokens = tokens.filter { it.start >= read }
                read = tokens.lastOrNull()?.end ?: read
            }
            found = found + aggregate(tokens, head.labels, aggregation).filter { it.label !in head.outside }
        }
        if (aggregation != Aggregation.NONE && windows.size > 1) found = withoutOverlaps(found)
        val source = windows[0].source!!
        return EntityResult(found.map { Entity(slice(source, it.start, it.end), it.label, it.start, it.end, it.score) })
    }

    override fun withStatistics(answer: EntityResult, statistics: Statistics) = answer.copy(statistics = statistics)
}

/** Each token's probabilities, from its logits, `width` of them. */
internal fun labelProbabilities(logits: FloatArray, width: Int): List<DoubleArray> =
    (0 until logits.size / width).map { softmax(logits.copyOfRange(it * width, (it + 1) * width)) }

/** A token, or a whole word, with its probabilities. */
private class Scored(val start: Int, val end: Int, val scores: DoubleArray, val continues: Boolean = false)

/** A token, word or entity with its label. */
private class Labelled(val start: Int, val end: Int, val label: String, val score: Double)

/** Tokens to entities, those of no entity among them; BUNDLE.md has the rules. */
private fun aggregate(tokens: List<Scored>, labels: List<String>, aggregation: Aggregation): List<Labelled> {
    val simple = aggregation == Aggregation.NONE || aggregation == Aggregation.SIMPLE
    val labelled = (if (simple) tokens else words(tokens, aggregation)).map { token ->
        val best = best(token.scores)
        Labelled(token.start, token.end, labels[best], token.scores[best])
    }
    return if (aggregation == Aggregation.NONE) labelled else grouped(labelled)
}

/** The first of the largest. */
private fun best(scores: DoubleArray): Int = scores.indices.maxByOrNull { scores[it] } ?: 0

private fun words(tokens: List<Scored>, aggregation: Aggregation): List<Scored> {
    val words = ArrayList<MutableList<Scored>>()
    for (token in tokens) {
        if (token.continues && words.isNotEmpty()) words.last().add(token) else words.add(mutableListOf(token))
    }
    return words.map { word ->
        val labels = word[0].scores.size
        val scores = when (aggregation) {
            Aggregation.FIRST -> word[0].scores
            Aggregation.AVERAGE -> DoubleArray(labels) { label -> word.sumOf { it.scores[label] } / word.size }
            else -> word.maxByOrNull { it.scores[best(it.scores)] }!!.scores
        }
        Scored(word[0].start, word.last().end, scores)
    }
}

private fun tagOf(label: String): String =
    if (label.startsWith("B-") || label.startsWith("I-")) label.substring(2) else label

private fun grouped(labelled: List<Labelled>): List<Labelled> {
    val groups = ArrayList<MutableList<Labelled>>()
    for (each in labelled) {
        val before = groups.lastOrNull()
        if (before != null && !each.label.startsWith("B-") && tagOf(each.label) == tagOf(before.last().label)) {
            before.add(each)
        } else {
            groups.add(mutableListOf(each))
        }
    }
    return groups.map { group ->
        val label = group[0].label.substringAfter('-')
        Labelled(group[0].start, group.last().end, label, group.sumOf { it.score } / group.size)
    }
}

/** Of entities of several windows that overlap the longest, of equally long ones the surest. */
private fun withoutOverlaps(found: List<Labelled>): List<Labelled> {
    val kept = ArrayList<Labelled>()
    for (each in found.sortedBy { it.start }) { // stable
        val last = kept.lastOrNull()
        if (last == null || each.start !in last.start until last.end) {
            kept.add(each)
        } else if (each.end - each.start > last.end - last.start ||
            (each.end - each.start == last.end - last.start && each.score > last.score)
        ) {
            kept[kept.size - 1] = each
        }
    }
    return kept
}
