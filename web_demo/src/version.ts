/** The bundle's `requires.runtime` is compared with this: the version of edgeformer-runtime that this library follows. */
export const RUNTIME_VERSION = "0.1.0";
