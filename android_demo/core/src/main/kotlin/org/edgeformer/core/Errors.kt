package org.edgeformer.core

/**
 * Base of every error that is the input's or the device's fault. Messages are one line: what was expected, what was
 * found, what to do.
 */
open class EdgeFormerError(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A bundle that does not follow BUNDLE.md: corrupted, foreign, or made by a newer version. */
class BundleError(message: String, cause: Throwable? = null) : EdgeFormerError(message, cause)

/** An input (text, image, audio, argument) that cannot be used. */
class InputError(message: String, cause: Throwable? = null) : EdgeFormerError(message, cause)

/** An engine that is missing, too old, failed, or gave NaN. */
class EngineError(message: String, cause: Throwable? = null) : EdgeFormerError(message, cause)
