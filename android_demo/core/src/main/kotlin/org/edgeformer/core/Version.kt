package org.edgeformer.core

/** The runtime's version that this core follows; a bundle that requires a newer one is refused. */
const val RUNTIME_VERSION = "0.1.0"
