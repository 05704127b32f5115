/** EdgeFormer bundles in the browser. */

export { Bundle, openBundle, type OpenOptions } from "./bundle.ts";
export { type Engine, type EngineOptions, openEngine } from "./engines.ts";
export { BundleError, EdgeFormerError, EngineError, InputError } from "./errors.ts";
export type { Answer, ClassificationAnswer, EmbeddingAnswer, ScoreAnswer, Statistics } from "./heads.ts";
export type { Pixels, RawImage } from "./image.ts";
export type { Manifest, Task } from "./manifest.ts";
export {
  type AnyPipeline,
  type EntityFinder,
  type ImageClassifier,
  type ImageEmbedder,
  load,
  type LoadOptions,
  Pipeline,
  pipelineOf,
  type QuestionAnswerer,
  type TextClassifier,
  type TextEmbedder,
  type TextScorer,
} from "./pipelines.ts";
export type { RawText } from "./text.ts";
export type { AnswerSpan, Entity, EntityAnswer, EntityOptions, SpanAnswer, SpanOptions } from "./tokens.ts";
export { RUNTIME_VERSION } from "./version.ts";
export { type Stage, type Verification, verify } from "./verify.ts";
