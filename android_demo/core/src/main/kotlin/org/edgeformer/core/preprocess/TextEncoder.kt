package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.InputError
import org.edgeformer.core.IntTensor
import org.edgeformer.core.MASK_POSITION
import org.edgeformer.core.MaskedToken
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.TextPreprocessing
import org.edgeformer.core.shorten

const val MAX_TEXT_CHARACTERS = 1_000_000

/** Of a text that is read in windows: all of it goes through the tokenizer. */
const val MAX_WINDOWED_CHARACTERS = 200_000

/** Of one input: each is a run of the model. */
const val MAX_WINDOWS = 4096

/** What text pipelines take. */
sealed class RawText {
    /** One text. */
    data class Single(val text: String) : RawText()

    /** Two texts, such as a question and an answer. */
    data class Pair(val first: String, val second: String) : RawText()

    /** Token ids, with the special tokens already among them. */
    data class TokenIds(val ids: List<Int>) : RawText()
}

/**
 * Token ids of one input in its bucket.
 *
 * @property program the bucket's program.
 * @property inputs its declared inputs, each (1, S) int32.
 * @property truncated the input was longer than the largest bucket and lost its end.
 * @property places where its tokens stand in the given texts; null where nobody asked.
 */
class EncodedText(
    val program: String,
    val inputs: Map<String, IntTensor>,
    val truncated: Boolean,
    val places: Places? = null,
)

/**
 * Where the N tokens of an encoded text, padding left out, stand in the texts that were given.
 *
 * @property starts the first character of each, in its text.
 * @property ends the character behind the last.
 * @property texts the number of its text, 0 or 1; -1: a special token.
 * @property words the number of its word in its text; -1 of special ones.
 * @property continues it continues the word of the one before it, as transformers sees it.
 */
class Places(
    val starts: IntArray,
    val ends: IntArray,
    val texts: IntArray,
    val words: IntArray,
    val continues: BooleanArray,
) {
    val size: Int get() = texts.size
}

/**
 * Turns text into the inputs of the smallest bucket that fits, exactly as the checkpoint's own tokenizer does it. Calls
 * from several threads are safe: nothing changes after init.
 *
 * @param tokenizerJson the tokenizer file's bytes, null where the spec names none.
 * @param programs the buckets; dimension 1 of their inputs is the length.
 * @throws BundleError the tokenizer file cannot be used.
 */
class TextEncoder(private val spec: TextPreprocessing, tokenizerJson: ByteArray?, programs: List<ProgramSpec>) {
    private val buckets = programs.sortedBy { it.inputs[0].shape[1] }
    private val longest = buckets.last().inputs[0].shape[1]
    private val tokenizer = tokenizerJson?.let { TextTokenizer.read(it, spec.tokenizer ?: "tokenizer") }
    private val vocabSize = spec.vocabSize ?: tokenizer?.size ?: Int.MAX_VALUE

    init {
        val special = tokenizer?.specialTokens ?: 0
        if (special >= longest) {
            throw BundleError("${spec.tokenizer}: $special special tokens leave no room for text in $longest positions")
        }
    }

    /**
     * Encodes one input.
     *
     * @throws InputError text that is no Unicode or too long, or token ids that the model does not have.
     */
    fun encode(raw: RawText): EncodedText = when (raw) {
        is RawText.Single -> encodeText(checked(raw.text), null)
        is RawText.Pair -> encodeText(checked(raw.first), checked(raw.second))
        is RawText.TokenIds -> encodeIds(raw.ids)
    }

    /**
     * All of a text, or of a text and its pair, in as many windows of the longest bucket as it takes. Windows divide
     * the last of the texts, the other stands whole in each. Neighbours share `stride` tokens, or half of what fits
     * into a window where that is no more.
     *
     * @throws InputError there is no tokenizer, or a text that no window or no tokenizer takes.
     */
    fun windows(text: String, pair: String?, stride: Int): List<EncodedText> {
        val tokenizer = tokenizer ?: throw InputError("this bundle has no tokenizer: its answers are places in a text")
        for (given in listOfNotNull(text, pair)) {
            val characters = given.codePointCount(0, given.length)
            if (characters > MAX_WINDOWED_CHARACTERS) {
                throw InputError("the text has $characters characters: expected at most $MAX_WINDOWED_CHARACTERS")
            }
        }
        val encoding = tokenizer.encodeWhole(checked(text), pair?.let(::checked))
        checkIds(encoding.ids)
        val divided = encoding.ids.indices.filter { encoding.texts[it] == if (pair == null) 0 else 1 }
        val around = encoding.ids.size - divided.size
        val room = longest - around
        if (room < 1) {
            throw InputError(
                "$around tokens stand in every window, special ones included, and fill the $longest positions of " +
                    "this bundle: shorten the first text",
            )
        }
        val shared = if (stride < room) stride else room / 2
        val count = divided.size
        val starts = if (count <= room) listOf(0) else (0 until count - shared step room - shared).toList()
        if (starts.size > MAX_WINDOWS) {
            throw InputError("the text takes ${starts.size} windows: expected at most $MAX_WINDOWS")
        }
        val first = divided.firstOrNull() ?: encoding.ids.size
        return starts.map { start ->
            val kept = (0 until first) + divided.subList(start, minOf(start + room, divided.size)) +
                (first + divided.size until encoding.ids.size)
            window(encoding, kept.toIntArray())
        }
    }

    /**
     * A text once for each mask in it, whose place [MASK_POSITION] says. The text is cut like any other.
     *
     * @throws InputError as [encode], or there is no mask in what the model reads of the text.
     */
    fun atMasks(text: String, head: MaskedToken): List<EncodedText> {
        val encoded = encodeText(checked(text), null)
        val ids = encoded.inputs.getValue("input_ids").toArray()
        val found = ids.indices.filter { ids[it] == head.maskTokenId }
        if (found.isEmpty()) {
            val where = if (encoded.truncated) "the first $longest tokens of the text, which is cut there" else "it"
            throw InputError("expected a text with ${head.maskToken}, found none in $where")
        }
        return found.map { place ->
            val mark = IntTensor.of(IntArray(ids.size) { if (it == place) 1 else 0 }, 1, ids.size)
            EncodedText(encoded.program, encoded.inputs + (MASK_POSITION to mark), encoded.truncated)
        }
    }

    /**
     * The id of a token of the vocabulary, or of the only one of a word.
     *
     * @throws InputError it is not one token.
     */
    fun tokenOf(word: String): Int {
        val tokenizer = tokenizer ?: throw InputError("this bundle has no tokenizer")
        val id = tokenizer.id(word)
            ?: tokenizer.encodeWhole(checked(word), null).tokens.filterNotNull().singleOrNull()?.id
        if (id == null || id >= vocabSize) {
            throw InputError("expected words that are one token each, found ${shorten(word)}")
        }
        return id
    }

    /** A token by itself as the tokenizer writes it. */
    fun textOf(token: Int): String = tokenizer?.text(token) ?: ""

    private fun window(encoding: WholeEncoding, kept: IntArray): EncodedText {
        val tokens = kept.map { encoding.tokens[it] }
        val places = Places(
            starts = IntArray(kept.size) { tokens[it]?.start ?: 0 },
            ends = IntArray(kept.size) { tokens[it]?.end ?: 0 },
            texts = IntArray(kept.size) { encoding.texts[kept[it]] },
            words = IntArray(kept.size) { tokens[it]?.word ?: -1 },
            continues = BooleanArray(kept.size) { tokens[it]?.continues ?: false },
        )
        val ids = IntArray(kept.size) { encoding.ids[kept[it]] }
        val types = IntArray(kept.size) { encoding.types[kept[it]] }
        return padded(ids, types, truncated = false, places)
    }

    private fun checkIds(ids: IntArray) {
        val largest = ids.maxOrNull() ?: 0
        if (largest >= vocabSize) {
            throw InputError("the tokenizer gave token id $largest, this model's are 0 to ${vocabSize - 1}")
        }
    }

    private fun encodeText(text: String, second: String?): EncodedText {
        val tokenizer = tokenizer ?: throw InputError("this bundle has no tokenizer and takes token ids only")
        if (second != null && tokenizer.specialTokensOfPair >= longest) {
            throw InputError("a pair of texts does not fit into the $longest positions of this bundle")
        }
        val encoding = tokenizer.encode(text, second, longest)
        checkIds(encoding.ids)
        return padded(encoding.ids, encoding.types, encoding.truncated)
    }

    private fun encodeIds(ids: List<Int>): EncodedText {
        if (ids.isEmpty()) throw InputError("expected at least one token id, found none")
        val wrong = ids.firstOrNull { it !in 0 until vocabSize }
        if (wrong != null) throw InputError("token id $wrong is out of range: this model's are 0 to ${vocabSize - 1}")
        val kept = ids.take(longest).toIntArray()
        return padded(kept, IntArray(kept.size), truncated = ids.size > longest)
    }

    private fun padded(ids: IntArray, types: IntArray, truncated: Boolean, places: Places? = null): EncodedText {
        val program = buckets.first { it.inputs[0].shape[1] >= ids.size }
        val length = program.inputs[0].shape[1]
        val inputs = program.inputs.associate { input ->
            val row = when (input.name) {
                "input_ids" -> IntArray(length) { if (it < ids.size) ids[it] else spec.padTokenId }
                "attention_mask" -> IntArray(length) { if (it < ids.size) 1 else 0 }
                MASK_POSITION -> IntArray(length)
                else -> types.copyOf(length)
            }
            input.name to IntTensor.of(row, 1, length)
        }
        return EncodedText(program.name, inputs, truncated, places)
    }
}

/** Text that the tokenizer can take: bounded, and without lone surrogates, which have no UTF-8. */
private fun checked(text: String): String {
    val characters = text.codePointCount(0, text.length)
    if (characters > MAX_TEXT_CHARACTERS) {
        throw InputError("the text has $characters characters: expected at most $MAX_TEXT_CHARACTERS")
    }
    var index = 0
    while (index < text.length) {
        val code = text.codePointAt(index)
        if (code in 0xD800..0xDFFF) {
            throw InputError("the text is not valid Unicode: half of a surrogate pair at character $index")
        }
        index += Character.charCount(code)
    }
    return text
}
