/** From raw input to an answer. */

import { Bundle, openBundle, type OpenOptions } from "./bundle.ts";
import { type Engine, type EngineOptions, openEngine } from "./engines.ts";
import { InputError } from "./errors.ts";
import {
  type Answer,
  classify,
  type ClassificationAnswer,
  embed,
  type EmbeddingAnswer,
  score,
  type ScoreAnswer,
} from "./heads.ts";
import { decodeImage, ImageEncoder, type RawImage } from "./image.ts";
import type { Manifest, Task, TextPreprocessing } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";
import { type Prepared, type RawText, TextEncoder } from "./text.ts";
import { answerSpans, type EntityAnswer, type EntityOptions, findEntities, type SpanAnswer, type SpanOptions, type Window } from "./tokens.ts";

type Source = Parameters<typeof openBundle>[0] | Bundle;

/** Answers of one task by one bundle. Calls take turns. */
export class Pipeline<Raw, A extends Answer, Options = never, P extends Prepared = Prepared> {
  constructor(
    readonly bundle: Bundle,
    readonly engine: Engine,
    /** Raw input to a program's inputs, or to those of several windows. */
    readonly prepare: (raw: Raw) => Promise<P[]>,
    /** The outputs of each of them to an answer. */
    readonly answer: (outputs: Record<string, Tensor>[], prepared: P[], options?: Options) => A,
  ) {}

  /**
   * Answers one input.
   *
   * @throws InputError the input cannot be used.
   * @throws EngineError the model failed, or gave NaN.
   */
  async run(raw: Raw, options?: Options): Promise<A> {
    const start = performance.now();
    const prepared = await this.prepare(raw);
    const ready = performance.now();
    const outputs: Record<string, Tensor>[] = [];
    for (const { program, inputs } of prepared) outputs.push(await this.engine.run(program, inputs));
    const ran = performance.now();
    const answer = this.answer(outputs, prepared, options);
    const statistics = { preprocessMs: ready - start, runMs: ran - ready, postprocessMs: performance.now() - ran };
    return { ...answer, statistics };
  }

  /** Frees the model's memory. */
  close(): void {
    this.engine.close();
  }
}

export type TextClassifier = Pipeline<RawText, ClassificationAnswer>;
export type TextEmbedder = Pipeline<RawText, EmbeddingAnswer>;
export type TextScorer = Pipeline<RawText, ScoreAnswer>;
export type ImageClassifier = Pipeline<RawImage, ClassificationAnswer>;
export type ImageEmbedder = Pipeline<RawImage, EmbeddingAnswer>;
/** Takes a question and its context. */
export type QuestionAnswerer = Pipeline<readonly [question: string, context: string], SpanAnswer, SpanOptions, Window>;
export type EntityFinder = Pipeline<string, EntityAnswer, EntityOptions, Window>;
export type AnyPipeline =
  | TextClassifier
  | TextEmbedder
  | TextScorer
  | ImageClassifier
  | ImageEmbedder
  | QuestionAnswerer
  | EntityFinder;

/**
 * Opens a bundle from a URL or a zip's content, checks all of it, and opens the pipeline of its task.
 *
 * @throws BundleError it does not follow BUNDLE.md, or is not what is required.
 * @throws EngineError no engine of this browser runs it.
 * @example
 *     const classifier = await load("bundles/intents.litert.dynamic-int8.zip", { task: "text-classification" });
 *     const { label, score } = await classifier.run("turn the lights off");
 */
export async function load(source: Source, options: LoadOptions<"image-classification">): Promise<ImageClassifier>;
export async function load(source: Source, options: LoadOptions<"image-embedding">): Promise<ImageEmbedder>;
export async function load(source: Source, options: LoadOptions<"text-classification">): Promise<TextClassifier>;
export async function load(source: Source, options: LoadOptions<"text-embedding">): Promise<TextEmbedder>;
export async function load(source: Source, options: LoadOptions<"text-scoring">): Promise<TextScorer>;
export async function load(source: Source, options: LoadOptions<"question-answering">): Promise<QuestionAnswerer>;
export async function load(source: Source, options: LoadOptions<"token-classification">): Promise<EntityFinder>;
export async function load(source: Source, options?: LoadOptions): Promise<AnyPipeline>;
export async function load(source: Source, options: LoadOptions = {}): Promise<AnyPipeline> {
  const bundle = source instanceof Bundle ? source : await openBundle(source, options);
  const { task } = bundle.manifest;
  if (options.task !== undefined && options.task !== task) {
    throw new InputError(`expected a bundle for ${options.task}, found ${bundle.manifest.name} for ${task}`);
  }
  return pipelineOf(bundle, await openEngine(bundle, options));
}

export interface LoadOptions<T extends Task = Task> extends OpenOptions, EngineOptions {
  /** The task that the bundle must have; gives the pipeline its type. */
  task?: T;
}

/** The pipeline of a bundle's task over an engine. */
export function pipelineOf(bundle: Bundle, engine: Engine): AnyPipeline {
  const { manifest } = bundle;
  const { preprocessing, postprocessing: head } = manifest;
  if (preprocessing.kind === "image" && (head.kind === "classification" || head.kind === "embedding")) {
    const encoder = new ImageEncoder(preprocessing);
    const prepare = async (raw: RawImage): Promise<Prepared[]> => {
      return [{ program: "image", inputs: { pixels: encoder.encode(await decodeImage(raw)) }, truncated: false }];
    };
    if (head.kind === "embedding") return new Pipeline(bundle, engine, prepare, ([outputs]) => embed(outputs!));
    return new Pipeline(bundle, engine, prepare, ([outputs]) => classify(outputs!, head));
  }
  if (preprocessing.kind === "text") {
    const encoder = encoderOf(bundle, preprocessing, manifest);
    const prepare = async (raw: RawText) => [encoder.encode(raw)];
    switch (head.kind) {
      case "classification":
        return new Pipeline(bundle, engine, prepare, ([outputs], [text]) => classify(outputs!, head, text!.truncated));
      case "embedding":
        return new Pipeline(bundle, engine, prepare, ([outputs], [text]) => embed(outputs!, text!.truncated));
      case "score":
        return new Pipeline(bundle, engine, prepare, ([outputs], [text]) => score(outputs!, head, text!.truncated));
      case "spans": {
        const windows = async (raw: readonly [string, string]) => {
          const [question, context] = Array.isArray(raw) ? raw : [];
          if (!question || !context) throw new InputError("expected a question and its context, a pair of texts, neither empty");
          return encoder.windows(question, context, head.stride);
        };
        return new Pipeline(bundle, engine, windows, (outputs, found, options?: SpanOptions) => answerSpans(outputs, found, head, options));
      }
      case "entities": {
        const windows = async (raw: string) => {
          if (typeof raw !== "string") throw new InputError("expected one text, found a pair of texts or token ids");
          return encoder.windows(raw, null, head.stride);
        };
        return new Pipeline(bundle, engine, windows, (outputs, found, options?: EntityOptions) => findEntities(outputs, found, head, options));
      }
    }
  }
  engine.close();
  throw new InputError(
    `${manifest.name} is for ${manifest.task}: expected a task of text but fill-mask, or one of images, which is ` +
      "what this library runs",
  );
}

function encoderOf(bundle: Bundle, spec: TextPreprocessing, { programs }: Manifest): TextEncoder {
  return new TextEncoder(spec, spec.tokenizer === null ? null : bundle.bytes(spec.tokenizer), programs);
}
