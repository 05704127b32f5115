/** Of the package, put in at build time. */
declare const LITERT_VERSION: string;
