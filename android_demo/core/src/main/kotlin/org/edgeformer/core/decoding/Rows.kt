package org.edgeformer.core.decoding

/** A row of the cache that a hypothesis sees, in an additive attention mask. */
internal const val SEEN = 0f

/** Finite and far inside float16; exp of it is 0 for every spread of scores below 900. */
internal const val HIDDEN = -1000f

/** A mask (L) that hides every row. */
internal fun hiddenRows(rows: Int) = FloatArray(rows) { HIDDEN }
