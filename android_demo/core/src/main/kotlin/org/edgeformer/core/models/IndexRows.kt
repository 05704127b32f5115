package org.edgeformer.core.models

/** By the names of a program and of its input: the input's numbers must be below this. */
typealias Rows = Map<String, Map<String, Int>>

/**
 * What a reader found in one model file.
 *
 * @property operators how often each occurs.
 * @property rows of the inputs that index a table, the rows of the smallest such table.
 */
internal class Contents(val operators: Map<String, Int>, val rows: Rows)

/**
 * Follows the inputs of a graph, or other values in it, to the tables that they index.
 *
 * `K` is how the format names what flows through a graph. Numbers that are computed are not followed: there the engine
 * has to look, and a format whose engine does not has to refuse them.
 */
internal class IndexTrace<K : Any>(inputs: Iterable<K>) {
    private val sources = inputs.associateWithTo(HashMap<K, K>()) { it }
    private val found = HashMap<K, Int>()

    /** An operator passes numbers on as they are: in another shape or type, or some of them. */
    fun move(value: K, results: Iterable<K>) {
        val source = sources[value] ?: return
        results.forEach { sources[it] = source }
    }

    /** Numbers are computed, or written over. */
    fun forget(isGone: (K) -> Boolean) {
        sources.keys.removeAll(isGone)
    }

    /** An operator takes rows of a table by numbers; returns where these come from, null: they are computed. */
    fun index(indices: K, rows: Int): K? {
        val source = sources[indices] ?: return null
        found[source] = minOf(rows, found[source] ?: rows)
        return source
    }

    /** What was found, by the inputs' names. */
    fun rows(names: Map<K, String>): Map<String, Int> =
        names.mapNotNull { (value, name) -> found[value]?.let { name to it } }.toMap()
}
