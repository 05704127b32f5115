/** Replays a bundle's recorded vectors stage by stage: its self-test (BUNDLE.md, "Vectors"). */

import type { Bundle } from "./bundle.ts";
import { BundleError, EngineError, InputError, shorten } from "./errors.ts";
import { Fields } from "./fields.ts";
import type { ClassificationAnswer, EmbeddingAnswer, ScoreAnswer } from "./heads.ts";
import { normalisationTable } from "./image.ts";
import { CASES, type ProgramSpec, SPAN_ENDS, TENSORS } from "./manifest.ts";
import type { AnyPipeline, Pipeline } from "./pipelines.ts";
import { readSafetensors, type Tensor } from "./safetensors.ts";
import { parseJson } from "./strict_json.ts";
import type { Prepared } from "./text.ts";
import { type AnswerSpan, type EntityAnswer, labelProbabilities, type SpanAnswer, spanProbabilities, tokenLogits, type Window } from "./tokens.ts";

/** Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's. */
const PIXEL_TOLERANCE_LEVELS = 2.01;
/** Between recorded scores and those of the recorded logits: the rounding of float32 in another implementation. */
const RECORDED_TOLERANCE = 1e-4;

/** How one stage compares with the reference, at its worst over all cases; `maxAbs` null: nothing to compare. */
export interface Stage {
  name: string;
  maxAbs: number | null;
  tolerance: number;
  ok: boolean;
  reason?: string;
}

/** `firstDiverging` is the first stage that is not ok, null where all are. */
export interface Verification {
  executedBy: string;
  stages: Stage[];
  ok: boolean;
  firstDiverging: string | null;
}

interface Case {
  program: string;
  raw: unknown;
  labels: string[];
  scores: number[];
  places: (AnswerSpan & { label?: string })[];
  inputs: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
}

/**
 * Verifies a bundle in this browser.
 *
 * @param progress called with the number of finished cases and of all cases.
 * @throws BundleError the bundle has no vectors, or they do not follow BUNDLE.md. An engine that fails is a stage that is
 *   not ok.
 */
export async function verify(pipeline: AnyPipeline, progress: (done: number, all: number) => void = () => {}): Promise<Verification> {
  const { bundle } = pipeline;
  const { cases, output, score } = readVectors(bundle);
  const player = new Player(pipeline as unknown as AnyPlayed, cases, output, score);
  const stages = new Map(
    ["preprocess", ...bundle.manifest.programs.map((program) => program.name), "answer"].map((name) => [name, [] as Stage[]]),
  );
  for (const [index, recorded] of cases.entries()) {
    stages.get("preprocess")!.push(await player.preprocess(recorded));
    stages.get(recorded.program)!.push(await player.program(recorded));
    stages.get("answer")!.push(await player.answer(recorded));
    progress(index + 1, cases.length);
  }
  const worst = [...stages].map(([name, found]) => ({ ...worstOf(found), name }));
  const firstDiverging = worst.find((stage) => !stage.ok)?.name ?? null;
  return { executedBy: pipeline.engine.executedBy, stages: worst, ok: firstDiverging === null, firstDiverging };
}

type AnyAnswer = ClassificationAnswer | EmbeddingAnswer | ScoreAnswer | SpanAnswer | EntityAnswer;
type AnyPlayed = Pipeline<unknown, AnyAnswer, never, Prepared>;

class Player {
  private readonly largest = new Map<string, number>();

  constructor(
    private readonly pipeline: AnyPlayed,
    cases: Case[],
    private readonly tolerance: number,
    private readonly scoreTolerance: number,
  ) {
    // Buckets of one model share what a tolerance is a fraction of.
    for (const { outputs } of cases) {
      for (const [name, { data }] of Object.entries(outputs)) {
        for (const value of data) this.largest.set(name, Math.max(this.largest.get(name) ?? 0, Math.abs(value)));
      }
    }
  }

  /** Token ids have no tolerance: each of them selects another row of the embedding table. Pixels have a small one. */
  async preprocess(recorded: Case): Promise<Stage> {
    const { preprocessing: spec } = this.pipeline.bundle.manifest;
    const tolerance = spec.kind === "image" ? PIXEL_TOLERANCE_LEVELS / (255 * Math.min(...spec.std)) : 0;
    try {
      const [prepared] = (await this.pipeline.prepare(recorded.raw)) as [Prepared];
      if (prepared.program !== recorded.program) return failed(tolerance);
      return worstOf(Object.entries(recorded.inputs).map(([name, tensor]) => compare(prepared.inputs[name]!.data, tensor.data, tolerance)));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new BundleError(`${CASES}: the input ${shorten(recorded.raw)} cannot be used: ${error.message}`, { cause: error });
    }
  }

  async program(recorded: Case): Promise<Stage> {
    return this.trying(this.limit(Object.keys(recorded.outputs)[0]!), async () => {
      const outputs = await this.pipeline.engine.run(recorded.program, recorded.inputs);
      return worstOf(
        Object.entries(recorded.outputs).map(([name, tensor]) => compare(outputs[name]!.data, tensor.data, this.limit(name))),
      );
    });
  }

  /** The whole way from raw input: scores in the order of the recorded labels, the embedding, or the score. */
  async answer(recorded: Case): Promise<Stage> {
    const { postprocessing: head } = this.pipeline.bundle.manifest;
    if (head.kind === "spans" || head.kind === "entities") return this.placed(recorded);
    const isRaw = (head.kind === "embedding" && !head.normalized) || (head.kind === "score" && head.activation === "none");
    const tolerance = isRaw ? this.limit(Object.keys(recorded.outputs)[0]!) : this.scoreTolerance;
    const prepared = await this.pipeline.prepare(recorded.raw);
    const expected = this.numbers(this.pipeline.answer([recorded.outputs], prepared), recorded);
    return this.trying(tolerance, async () => {
      const misnamed = head.kind === "classification" ? compare(expected, recorded.scores, RECORDED_TOLERANCE) : null;
      if (misnamed?.ok === false) {
        return { ...misnamed, reason: "the recorded logits do not give the recorded scores: labels in another order, or another activation" };
      }
      const found = this.numbers(await this.pipeline.run(recorded.raw), recorded);
      return compare(found, head.kind === "classification" ? recorded.scores : expected, tolerance);
    });
  }

  /**
   * Answers that are places: the recorded outputs of an only window give the recorded places exactly; the engine's are
   * close to the recorded probabilities. Which place is the best may hang on the last digit.
   */
  private async placed(recorded: Case): Promise<Stage> {
    const windows = (await this.pipeline.prepare(recorded.raw)) as [Window, ...Window[]];
    if (windows.length === 1) {
      const answer = this.pipeline.answer([recorded.outputs], windows) as SpanAnswer | EntityAnswer;
      const found = "answers" in answer ? answer.answers : answer.entities;
      const places = (list: Case["places"]) => JSON.stringify(list.map(({ text, start, end, label }) => [text, start, end, label]));
      if (places(found) !== places(recorded.places)) {
        return { ...failed(RECORDED_TOLERANCE), reason: "the recorded outputs give other places in the text" };
      }
      const scores = (list: Case["places"]) => list.map(({ score }) => score);
      const stage = compare(scores(found), scores(recorded.places), RECORDED_TOLERANCE);
      if (!stage.ok) return { ...stage, reason: "the recorded outputs give other scores" };
    }
    return this.trying(this.scoreTolerance, async () => {
      const outputs = await this.pipeline.engine.run(windows[0].program, windows[0].inputs);
      return compare(this.probabilities(outputs, windows[0]), this.probabilities(recorded.outputs, windows[0]), this.scoreTolerance);
    });
  }

  /** What a window's tokens have, by which places are chosen. */
  private probabilities(outputs: Record<string, Tensor>, { places }: Window): number[] {
    const { postprocessing: head } = this.pipeline.bundle.manifest;
    if (head.kind === "entities") return labelProbabilities(tokenLogits(outputs, places, head.labels.length), head.labels.length).flat();
    const { starts, ends } = spanProbabilities(tokenLogits(outputs, places, SPAN_ENDS), places);
    return [...starts, ...ends];
  }

  /** An answer as numbers, in the order of the recorded one. */
  private numbers(answer: AnyAnswer, recorded: Case): ArrayLike<number> {
    if ("vector" in answer) return answer.vector;
    if (!("labels" in answer)) return "score" in answer ? [answer.score] : [];
    const scores = new Map(answer.labels.map((label, index) => [label, answer.scores[index]!]));
    return recorded.labels.map((label) => scores.get(label)!);
  }

  private limit(output: string): number {
    return this.tolerance * this.largest.get(output)!;
  }

  private async trying(tolerance: number, work: () => Promise<Stage>): Promise<Stage> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      return { ...failed(tolerance), reason: error.message };
    }
  }
}

/** Compares two arrays; NaN, infinity or another size are not comparable and not ok. */
function compare(found: ArrayLike<number>, reference: ArrayLike<number>, tolerance: number): Stage {
  let maxAbs = 0;
  for (let index = 0; index < reference.length; index++) maxAbs = Math.max(maxAbs, Math.abs(found[index]! - reference[index]!));
  if (found.length !== reference.length || !Number.isFinite(maxAbs)) return failed(tolerance);
  return { name: "", maxAbs, tolerance, ok: maxAbs <= tolerance };
}

function failed(tolerance: number): Stage {
  return { name: "", maxAbs: null, tolerance, ok: false };
}

/** Whatever is not ok is worse than whatever is; then what is closest to its tolerance, or farthest beyond it. */
function worstOf(stages: Stage[]): Stage {
  const badness = ({ ok, maxAbs, tolerance }: Stage) => {
    const ratio = maxAbs === null ? Infinity : tolerance === 0 ? (maxAbs === 0 ? 0 : Infinity) : maxAbs / tolerance;
    return ok ? Math.min(ratio, 1) : Math.max(ratio, 2);
  };
  return stages.reduce((worst, stage) => (badness(stage) > badness(worst) ? stage : worst));
}

function readVectors(bundle: Bundle): { cases: Case[]; output: number; score: number } {
  const { manifest } = bundle;
  if (!manifest.files.has(CASES)) {
    throw new BundleError(`the bundle ${manifest.name} has no recorded vectors: convert it again to verify it`);
  }
  const left = readSafetensors(bundle.bytes(TENSORS), TENSORS);
  const found = Fields.read(parseJson(bundle.bytes(CASES), CASES, 16 << 20), CASES, (fields) => {
    const tolerances = fields.object("tolerances", (each) => ({ output: each.number("output", [0, 1]), score: each.number("score", [0, 1]) }));
    let index = 0;
    const cases = fields.objects("cases", [1, 1000], (recorded) => readCase(recorded, bundle, left, index++));
    return { cases, ...tolerances };
  });
  const [unknown] = left.keys();
  if (unknown !== undefined) throw new BundleError(`${TENSORS}: unknown tensor ${shorten(unknown)}`);
  // A program without a case would pass every verification unseen.
  const unseen = manifest.programs.find(({ name }) => !found.cases.some((recorded) => recorded.program === name));
  if (unseen !== undefined) throw new BundleError(`${CASES}: no case runs the program ${unseen.name}`);
  return found;
}

function readCase(fields: Fields, bundle: Bundle, left: Map<string, Tensor>, index: number): Case {
  const { programs, preprocessing: spec, postprocessing: head } = bundle.manifest;
  const name = fields.choice("program", programs.map((program) => program.name));
  const program = programs.find((candidate) => candidate.name === name)!;
  const image = left.get(`${index}/pixels`);
  const raw = fields.object("input", (input) => readRaw(input, bundle));
  const [labels, scores, places] = fields.object("expected", (expected): [string[], number[], Case["places"]] => {
    if (head.kind === "spans") return [[], [], expected.objects("answers", [0, 100], readPlace)];
    if (head.kind === "entities") {
      return [[], [], expected.objects("entities", [0, 100_000], (entity) => ({ ...readPlace(entity), label: entity.string("label") }))];
    }
    if (head.kind !== "classification") return [[], [], []];
    const names = expected.strings("labels", [1, 100_000]);
    if (names.toSorted().join("\0") !== head.labels.toSorted().join("\0")) expected.fail("labels", "expected each label of the manifest");
    return [names, expected.numbers("scores", [names.length, names.length], [0, 1]), []];
  });
  const inputs = take(program.inputs, left, index);
  if (spec.kind === "image" && image !== undefined) {
    const table = normalisationTable(spec);
    const plane = spec.height * spec.width;
    const data = Float32Array.from(image.data, (level: number, at: number) => table[Math.floor(at / plane)]![level]!);
    inputs["pixels"] = { shape: image.shape, data };
  }
  return { program: name, raw, labels, scores, places, inputs, outputs: take(program.outputs, left, index) };
}

function readPlace(fields: Fields): AnswerSpan {
  const range = [0, 200_000] as const;
  const [start, end] = [fields.int("start", range), fields.int("end", range)];
  return { text: fields.string("text"), start, end, score: fields.number("score", [0, 4096]) };
}

/** What a pipeline takes, of what `cases.json` holds. */
function readRaw(input: Fields, bundle: Bundle): unknown {
  if (bundle.manifest.preprocessing.kind === "image") {
    const name = input.string("image", /^vectors\/[^/]+\.png$/);
    return new Blob([bundle.bytes(name) as BlobPart], { type: "image/png" });
  }
  if (input.has("token_ids")) return { tokenIds: input.ints("token_ids", [1, 100_000], [0, 2 ** 31 - 1]) };
  const text = input.string("text", undefined, [0, 200_000]);
  return input.has("pair") ? [text, input.string("pair", undefined, [0, 200_000])] : text;
}

/** Removes a case's tensors from the file's and checks them against the manifest; images are stored in 8 bits. */
function take(specs: ProgramSpec["inputs"], left: Map<string, Tensor>, index: number): Record<string, Tensor> {
  const found = specs.map(({ name, dtype, shape }) => {
    const key = `${index}/${name}`;
    const tensor = left.get(key);
    if (tensor === undefined) throw new BundleError(`${TENSORS}: the tensor ${key} is missing`);
    left.delete(key);
    const isTyped = dtype === "int32" ? tensor.data instanceof Int32Array : !(tensor.data instanceof Int32Array);
    if (!isTyped || String(tensor.shape) !== String(shape)) throw new BundleError(`${TENSORS}: ${key}: expected ${dtype} ${shape}, found ${tensor.shape}`);
    if (!tensor.data.every(Number.isFinite)) throw new BundleError(`${TENSORS}: ${key} holds NaN or infinity`);
    return [name, tensor] as const;
  });
  return Object.fromEntries(found);
}

