package org.edgeformer.core

/**
 * The keys of a JSON object, each taken once and checked: what manifest.schema.json and cases.schema.json say.
 *
 * @param path where the object stands, for messages: "manifest.json: programs[0]".
 */
internal class Fields(private val values: Map<*, *>, private val path: String) {
    private val taken = HashSet<String>()

    fun string(key: String, pattern: Regex? = null, length: IntRange = 0..Int.MAX_VALUE): String =
        text(key, required(key), pattern, length)

    fun optionalString(key: String, pattern: Regex? = null, length: IntRange = 0..Int.MAX_VALUE): String? =
        required(key)?.let { text(key, it, pattern, length) }

    fun choice(key: String, choices: Collection<String>): String {
        val found = required(key)
        if (found !in choices) fail(key, "expected one of ${choices.joinToString(", ")}, found ${shorten(found)}")
        return found as String
    }

    fun int(key: String, range: LongRange): Int = integer(key, required(key), range).toInt()

    fun long(key: String, range: LongRange): Long = integer(key, required(key), range)

    fun optionalInt(key: String, range: LongRange): Int? = optionalLong(key, range)?.toInt()

    fun optionalLong(key: String, range: LongRange): Long? = required(key)?.let { integer(key, it, range) }

    /** A number from `least` to `most`; it may be written as an integer. */
    fun number(key: String, least: Double, most: Double, aboveLeast: Boolean = false): Double =
        real(key, required(key), least, most, aboveLeast)

    fun numbers(key: String, count: Int, least: Double, most: Double): List<Double> =
        list(key, count..count).mapIndexed { index, value -> real("$key[$index]", value, least, most, false) }

    fun boolean(key: String): Boolean =
        required(key) as? Boolean ?: fail(key, "expected boolean, found ${shorten(values[key])}")

    fun ints(key: String, count: IntRange, range: LongRange): List<Int> =
        list(key, count).mapIndexed { index, value -> integer("$key[$index]", value, range).toInt() }

    fun strings(key: String, count: IntRange, length: IntRange = 0..Int.MAX_VALUE): List<String> =
        list(key, count).mapIndexed { index, value -> text("$key[$index]", value, null, length) }

    fun <T> objects(key: String, count: IntRange, read: (Fields) -> T): List<T> =
        list(key, count).mapIndexed { index, value -> nested("$key[$index]", value, read) }

    fun <T> obj(key: String, read: (Fields) -> T): T = nested(key, required(key), read)

    /** An object whose keys are data, each read by `read(fields of all of them, key)`. */
    fun <T> table(key: String, count: IntRange, keyLength: IntRange, read: (Fields, String) -> T): Map<String, T> =
        obj(key) { fields ->
            if (fields.values.size !in count) fail(key, "expected ${shown(count)} keys, found ${fields.values.size}")
            val found = LinkedHashMap<String, T>()
            for (name in fields.values.keys) {
                text(key, name, null, keyLength)
                found[name as String] = read(fields, name)
            }
            found
        }

    /** All keys. */
    val keys: Set<String> get() = values.keys.map { it as String }.toSet()

    /** Whether the key is there, for keys that may be missing. */
    fun has(key: String): Boolean = values.containsKey(key)

    /** The value of a key, which stays to be read. */
    fun peek(key: String): Any? = values[key]

    /** The value of a key whose content is nobody's business here. */
    fun skip(key: String): Any? = required(key)

    /** Takes the other keys, too, which are for newer readers. */
    fun ignoreOthers() {
        taken.addAll(keys)
    }

    /** Refuses keys that nothing has asked for. */
    fun end() {
        val unknown = values.keys.firstOrNull { it !in taken } ?: return
        throw BundleError("$path: unknown key ${shorten(unknown)}: expected only ${taken.sorted().joinToString(", ")}")
    }

    fun fail(key: String, problem: String): Nothing = throw BundleError("$path: $key: $problem")

    private fun required(key: String): Any? {
        if (!values.containsKey(key)) throw BundleError("$path: the key '$key' is missing")
        taken.add(key)
        return values[key]
    }

    private fun <T> nested(key: String, value: Any?, read: (Fields) -> T): T {
        val fields = Fields(value as? Map<*, *> ?: fail(key, "expected object, found ${shorten(value)}"), "$path: $key")
        return read(fields).also { fields.end() }
    }

    private fun list(key: String, count: IntRange): List<*> {
        val name = key.substringBefore('[')
        val found = required(name) as? List<*> ?: fail(key, "expected array, found ${shorten(values[name])}")
        if (found.size !in count) fail(key, "expected ${shown(count)} items, found ${found.size}")
        return found
    }

    private fun text(key: String, value: Any?, pattern: Regex?, length: IntRange): String {
        val found = value as? String ?: fail(key, "expected string, found ${shorten(value)}")
        if (found.codePointCount(0, found.length) !in length) fail(key, "expected ${shown(length)} characters")
        if (pattern?.matches(found) == false) fail(key, "expected text like $pattern, found ${shorten(found)}")
        return found
    }

    private fun integer(key: String, value: Any?, range: LongRange): Long {
        val found = value as? Long ?: fail(key, "expected integer, found ${shorten(value)}")
        if (found !in range) fail(key, "expected ${range.first} to ${range.last}, found $found")
        return found
    }

    private fun real(key: String, value: Any?, least: Double, most: Double, aboveLeast: Boolean): Double {
        val found = (value as? Number ?: fail(key, "expected number, found ${shorten(value)}")).toDouble()
        if (found < least || found > most || (aboveLeast && found == least)) {
            fail(key, "expected ${if (aboveLeast) "above " else ""}$least to $most, found $found")
        }
        return found
    }

    private fun shown(range: IntRange) =
        if (range.last == Int.MAX_VALUE) "at least ${range.first}" else "${range.first} to ${range.last}"

    companion object {
        /** Reads a whole file's value. */
        fun <T> read(value: Any?, where: String, read: (Fields) -> T): T {
            val fields = Fields(value as? Map<*, *> ?: throw BundleError("$where: expected an object"), where)
            return read(fields).also { fields.end() }
        }
    }
}
