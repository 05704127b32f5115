/** The manifest of a bundle. BUNDLE.md is normative. */

import { BundleError, shorten } from "./errors.ts";
import { Fields } from "./fields.ts";
import { checkDistinct, checkName } from "./names.ts";
import { type Json, parseJson } from "./strict_json.ts";
import { RUNTIME_VERSION } from "./version.ts";

export const MANIFEST = "manifest.json";
export const SIGNATURE = "manifest.sig";
export const REFUSED = "refused.json";
export const CASES = "vectors/cases.json";
export const TENSORS = "vectors/tensors.safetensors";
const FORMAT_VERSION = 1;
const MAX_BYTES = 4 << 20;
const MAX_INT = 2 ** 31 - 1;
const RESERVED_PROGRAMS = ["preprocess", "answer", "mel", "steps", "text"];
/** 1 at the position whose token is predicted, of programs that predict one. */
const MASK_POSITION = "mask_position";
const TEXT_INPUTS = ["input_ids", "attention_mask", "token_type_ids", MASK_POSITION];

/** Each task with the kinds of its preprocessing and of its postprocessing. */
const TASKS = {
  "text-classification": ["text", "classification"],
  "text-embedding": ["text", "embedding"],
  "text-scoring": ["text", "score"],
  "question-answering": ["text", "spans"],
  "token-classification": ["text", "entities"],
  "fill-mask": ["text", "fills"],
  "image-classification": ["image", "classification"],
  "image-embedding": ["image", "embedding"],
  "speech-recognition": ["audio", "transcription"],
} as const;
export type Task = keyof typeof TASKS;

const TARGETS = ["litert", "coreml", "executorch", "onnx"] as const;
export type Target = (typeof TARGETS)[number];

export interface TensorSpec {
  name: string;
  dtype: "float32" | "int32";
  shape: number[];
}

/** One callable of a model file: `entry` is the signature or function that runs it inside `file`. */
export interface ProgramSpec {
  name: string;
  file: string;
  entry: string;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

export interface TextPreprocessing {
  kind: "text";
  tokenizer: string | null;
  padTokenId: number;
  vocabSize: number | null;
}

export interface ImagePreprocessing {
  kind: "image";
  height: number;
  width: number;
  resizeShortSide: number;
  interpolation: "bicubic" | "bilinear";
  crop: "center" | "center-floor" | "squash";
  mean: number[];
  std: number[];
}

/** Of speech, which this library does not run yet. */
export interface Other {
  kind: "audio" | "transcription";
}

/** An answer is a span of the second text, scored by its first token and its last. */
export interface SpanExtraction {
  kind: "spans";
  stride: number;
  maxAnswerTokens: number;
}

const AGGREGATIONS = ["none", "simple", "first", "average", "max"] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

/** Every token gets a label; tokens of one label become an entity. */
export interface TokenLabels {
  kind: "entities";
  labels: string[];
  outside: string[];
  aggregation: Aggregation;
  stride: number;
}

export interface Classification {
  kind: "classification";
  labels: string[];
  activation: "softmax" | "sigmoid";
}

export interface Embedding {
  kind: "embedding";
  dim: number;
  normalized: boolean;
}

export interface Score {
  kind: "score";
  activation: "none" | "sigmoid";
}

/** The output is the logits of every token of the vocabulary, at the position of the mask token. */
export interface MaskedToken {
  kind: "fills";
  maskToken: string;
  maskTokenId: number;
}

export type Preprocessing = TextPreprocessing | ImagePreprocessing | Other;
export type Postprocessing = Classification | Embedding | Score | SpanExtraction | TokenLabels | MaskedToken | Other;

/** Everything a page has to know to run the bundle; see BUNDLE.md for each field's meaning. */
export interface Manifest {
  name: string;
  family: string;
  task: Task;
  target: Target;
  precision: string;
  license: string | null;
  source: { id: string; revision: string | null; weightsSha256: string };
  attention: string;
  toolchain: Map<string, string>;
  programs: ProgramSpec[];
  preprocessing: Preprocessing;
  postprocessing: Postprocessing;
  files: Map<string, { sha256: string; size: number }>;
}

/**
 * Reads a manifest from an untrusted file.
 *
 * @throws BundleError the text does not follow BUNDLE.md, asks for a newer runtime, or is of a task that the web library
 *   does not run.
 */
export function parseManifest(data: Uint8Array): Manifest {
  const value = parseJson(data, MANIFEST, MAX_BYTES);
  checkVersion(value);
  checkCharacters(value);
  const manifest = Fields.read(value, MANIFEST, readManifest);
  checkFiles(manifest);
  for (const program of manifest.programs) checkProgram(manifest, program);
  checkUnique(manifest.programs.map((program) => program.name), "program");
  checkTask(manifest);
  return manifest;
}

const WORD = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const ENTRY = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const VERSION = /^(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}$/;
const OS_VERSION = /^[0-9]{1,4}(\.[0-9]{1,4}){0,2}$/;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** Says that a bundle is newer before a check that cannot know its keys says something less helpful. */
function checkVersion(value: Json): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return;
  const { format_version: found, requires } = value;
  if (typeof found === "bigint" && found > FORMAT_VERSION) {
    throw new BundleError(
      `${MANIFEST}: made by a newer version (${found}), this library reads ${FORMAT_VERSION}: upgrade edgeformer`,
    );
  }
  if (typeof requires !== "object" || requires === null || Array.isArray(requires)) return;
  const needed = requires["runtime"];
  if (typeof needed === "string" && VERSION.test(needed) && isNewer(needed, RUNTIME_VERSION)) {
    throw new BundleError(`${MANIFEST}: needs runtime ${needed} or newer, this is ${RUNTIME_VERSION}: upgrade edgeformer`);
  }
}

function isNewer(version: string, than: string): boolean {
  const [found, other] = [version, than].map((text) => text.split(".").map(Number)) as [number[], number[]];
  const index = found.findIndex((part, at) => part !== other[at]);
  return index >= 0 && found[index]! > other[index]!;
}

/** No text of a manifest, key or value, holds a control character. */
function checkCharacters(value: Json): void {
  if (typeof value === "string" && CONTROL.test(value)) {
    throw new BundleError(`${MANIFEST}: ${shorten(value)} holds a control character`);
  }
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) Object.keys(value).forEach(checkCharacters);
  Object.values(value).forEach(checkCharacters);
}

function readManifest(fields: Fields): Manifest {
  fields.int("format_version", [FORMAT_VERSION, FORMAT_VERSION]);
  // It answers several texts at a time, which nothing here does.
  if (fields.has("packed")) fields.object("packed", readProgram);
  fields.object("requires", (requires) => {
    requires.string("runtime", VERSION);
    requires.optionalString("ios", OS_VERSION);
    requires.optionalString("macos", OS_VERSION);
    requires.optionalInt("android_api", [1, 1000]);
  });
  fields.object("recipe", (recipe) => {
    for (const key of ["name", "weights", "activations", "embeddings"]) recipe.string(key, WORD);
  });
  fields.table("operators", [0, 10_000], [1, 200], (all, key) => all.int(key, [1, 1e9]));
  return {
    name: fields.string("name", NAME),
    family: fields.string("family", WORD),
    task: fields.choice("task", Object.keys(TASKS) as Task[]),
    target: fields.choice("target", TARGETS),
    precision: fields.string("precision", WORD),
    license: fields.optionalString("license", undefined, [1, 200]),
    source: fields.object("source", (source) => ({
      id: source.string("id", undefined, [1, 500]),
      revision: source.optionalString("revision", undefined, [1, 200]),
      weightsSha256: source.string("weights_sha256", SHA256),
    })),
    attention: fields.string("attention", WORD),
    toolchain: fields.table("toolchain", [0, 100], [1, 100], (all, key) => all.string(key, undefined, [1, 100])),
    programs: fields.objects("programs", [1, 64], readProgram),
    preprocessing: fields.object("preprocessing", readPreprocessing),
    postprocessing: fields.object("postprocessing", readPostprocessing),
    files: fields.table("files", [1, 10_000], [0, Infinity], (all, key) =>
      all.object(key, (file) => ({ sha256: file.string("sha256", SHA256), size: file.int("size", [0, 2 ** 32 - 1]) })),
    ),
  };
}

function readProgram(fields: Fields): ProgramSpec {
  return {
    name: fields.string("name", WORD),
    file: fields.string("file"),
    entry: fields.string("entry", ENTRY),
    inputs: fields.objects("inputs", [1, 256], readTensor),
    outputs: fields.objects("outputs", [1, 256], readTensor),
  };
}

function readTensor(fields: Fields): TensorSpec {
  return {
    name: fields.string("name", WORD),
    dtype: fields.choice("dtype", ["float32", "int32"]),
    shape: fields.ints("shape", [0, 8], [1, MAX_INT]),
  };
}

function readPreprocessing(fields: Fields): Preprocessing {
  const kind = fields.choice("kind", ["text", "image", "audio"]);
  if (kind === "text") {
    return {
      kind,
      tokenizer: fields.optionalString("tokenizer"),
      padTokenId: fields.int("pad_token_id", [0, MAX_INT]),
      vocabSize: fields.optionalInt("vocab_size", [1, 2 ** 31]),
    };
  }
  if (kind === "audio") return readOther(fields, kind);
  fields.choice("channels", ["RGB"]);
  fields.choice("layout", ["NCHW"]);
  const spec: ImagePreprocessing = {
    kind,
    height: fields.int("height", [1, 4096]),
    width: fields.int("width", [1, 4096]),
    resizeShortSide: fields.int("resize_short_side", [1, 8192]),
    interpolation: fields.choice("interpolation", ["bicubic", "bilinear"]),
    crop: fields.choice("crop", ["center", "center-floor", "squash"]),
    mean: fields.numbers("mean", [3, 3], [-1000, 1000]),
    std: fields.numbers("std", [3, 3], [0.0001, 1000]),
  };
  if (spec.resizeShortSide < Math.max(spec.height, spec.width)) {
    fields.fail("resize_short_side", `expected at least height and width, found ${spec.resizeShortSide}`);
  }
  return spec;
}

function readPostprocessing(fields: Fields): Postprocessing {
  const kinds = ["classification", "embedding", "score", "spans", "entities", "fills", "transcription"] as const;
  const kind = fields.choice("kind", kinds);
  switch (kind) {
    case "classification":
      return {
        kind,
        labels: fields.strings("labels", [1, 100_000], [1, 500]),
        activation: fields.choice("activation", ["softmax", "sigmoid"]),
      };
    case "embedding":
      return { kind, dim: fields.int("dim", [1, 1e6]), normalized: fields.boolean("normalized") };
    case "score":
      return { kind, activation: fields.choice("activation", ["none", "sigmoid"]) };
    case "spans":
      return {
        kind,
        stride: fields.int("stride", [0, 1e6]),
        maxAnswerTokens: fields.int("max_answer_tokens", [1, 512]),
      };
    case "entities":
      return {
        kind,
        labels: fields.strings("labels", [1, 100_000], [1, 500]),
        outside: fields.strings("outside", [0, 1000], [1, 500]),
        aggregation: fields.choice("aggregation", AGGREGATIONS),
        stride: fields.int("stride", [0, 1e6]),
      };
    case "fills":
      return {
        kind,
        maskToken: fields.string("mask_token", undefined, [1, 500]),
        maskTokenId: fields.int("mask_token_id", [0, MAX_INT]),
      };
    default:
      return readOther(fields, kind);
  }
}

function readOther(fields: Fields, kind: Other["kind"]): Other {
  fields.keys.filter((key) => key !== "kind").forEach((key) => fields.skip(key));
  return { kind };
}

function refuse(problem: string): never {
  throw new BundleError(`${MANIFEST}: ${problem}`);
}

function checkFiles(manifest: Manifest): void {
  const names = [...manifest.files.keys()];
  names.forEach(checkName);
  checkDistinct([...names, MANIFEST, SIGNATURE]);
  if (manifest.files.has(CASES) !== manifest.files.has(TENSORS)) {
    refuse(`files: ${CASES} and ${TENSORS} belong together, found one of them`);
  }
}

function checkProgram(manifest: Manifest, program: ProgramSpec): void {
  const where = `program ${program.name}`;
  if (RESERVED_PROGRAMS.includes(program.name)) {
    refuse(`${where}: this name is reserved, as are all of ${RESERVED_PROGRAMS.join(", ")}`);
  }
  checkName(program.file);
  const isFolder = [...manifest.files.keys()].some((name) => name.startsWith(`${program.file}/`));
  const file = `${where}: its file ${shorten(program.file)}`;
  if (!manifest.files.has(program.file) && !isFolder) refuse(`${file} is neither a file nor a folder of files`);
  if (isFolder !== (manifest.target === "coreml")) refuse(`${file}: a Core ML model is a folder, any other a file`);
  checkUnique([...program.inputs, ...program.outputs].map((tensor) => tensor.name), `input or output of ${program.name}`);
}

function checkTask(manifest: Manifest): void {
  const { preprocessing: before, postprocessing: head, programs, task } = manifest;
  const [kindBefore, kindHead] = TASKS[task];
  if (before.kind !== kindBefore) refuse(`preprocessing.kind: expected '${kindBefore}' for ${task}`);
  if (head.kind !== kindHead) refuse(`postprocessing.kind: expected '${kindHead}' for ${task}`);
  if (before.kind === "text") checkText(before, manifest);
  if (before.kind === "image") checkImage(before, programs);
  if (head.kind === "classification") {
    checkUnique(head.labels, "label");
    checkWidth(head.labels.length, programs);
  } else if (head.kind === "embedding") checkWidth(head.dim, programs);
  else if (head.kind === "score") checkWidth(1, programs);
  else if (head.kind === "spans") checkTokens(before, SPAN_ENDS, head.stride, programs);
  else if (head.kind === "entities") {
    checkUnique(head.labels, "label");
    checkTokens(before, head.labels.length, head.stride, programs);
  } else if (head.kind === "fills") checkFills(before as TextPreprocessing, head, programs);
}

/** There is a tokenizer, and every program predicts the token at one position. */
function checkFills(before: TextPreprocessing, head: MaskedToken, programs: ProgramSpec[]): void {
  const size = before.vocabSize;
  if (before.tokenizer === null || size === null) return refuse("preprocessing: fill-mask needs a tokenizer and vocab_size");
  if (head.maskTokenId >= size || head.maskTokenId === before.padTokenId) {
    refuse("postprocessing.mask_token_id: expected an id that is no padding's");
  }
  checkWidth(size, programs);
  const without = programs.find((program) => program.inputs.every((input) => input.name !== MASK_POSITION));
  if (without !== undefined) refuse(`program ${without.name}: expected an input ${MASK_POSITION}`);
}

/** Columns of a span program's logits: that an answer starts at a token, and that it ends there. */
export const SPAN_ENDS = 2;

/** Every program scores each of its tokens, and neighbouring windows share no more than half of one. */
function checkTokens(before: Preprocessing, width: number, stride: number, programs: ProgramSpec[]): void {
  for (const { name, inputs, outputs } of programs) {
    const shape = [1, inputs[0]!.shape[1]!, width];
    if (outputs.length !== 1 || outputs[0]!.dtype !== "float32" || !isSame(outputs[0]!.shape, shape)) {
      refuse(`program ${name}: expected one float32 output of shape ${shape.join(", ")}`);
    }
  }
  const longest = Math.max(...programs.map((program) => program.inputs[0]!.shape[1]!));
  if (stride > longest / 2) refuse(`postprocessing.stride: expected at most half of the longest program's ${longest}`);
  if ((before as TextPreprocessing).tokenizer === null) refuse("preprocessing.tokenizer: places in a text need one");
}

/** Every program's only output is as wide as the answer. */
function checkWidth(width: number, programs: ProgramSpec[]): void {
  for (const { name, outputs } of programs) {
    const [output] = outputs;
    if (outputs.length !== 1 || output!.dtype !== "float32" || !isSame(output!.shape, [1, width])) {
      refuse(`program ${name}: expected one float32 output of shape (1, ${width})`);
    }
  }
}

/** The tokenizer is there, and the programs are buckets of different lengths. */
function checkText(spec: TextPreprocessing, manifest: Manifest): void {
  if (spec.tokenizer !== null && !manifest.files.has(spec.tokenizer)) {
    refuse(`preprocessing.tokenizer: ${shorten(spec.tokenizer)} is not among files`);
  }
  if (spec.vocabSize !== null && spec.padTokenId >= spec.vocabSize) {
    refuse("preprocessing.pad_token_id is not below vocab_size");
  }
  for (const { name, inputs } of manifest.programs) {
    const ids = inputs.find((tensor) => tensor.name === "input_ids");
    for (const tensor of inputs) {
      if (!TEXT_INPUTS.includes(tensor.name)) {
        refuse(`program ${name}: unknown input ${shorten(tensor.name)}: text has ${TEXT_INPUTS.join(", ")}`);
      }
      const isRow = tensor.dtype === "int32" && tensor.shape.length === 2 && tensor.shape[0] === 1;
      if (ids === undefined || !isRow || !isSame(tensor.shape, ids.shape)) {
        refuse(`program ${name}: expected input_ids and other inputs of one shape (1, S) in int32`);
      }
    }
  }
  checkUnique(manifest.programs.map((program) => String(program.inputs[0]!.shape[1])), "sequence length");
}

/** There is one program, and its input is what the preprocessing gives. */
function checkImage(spec: ImagePreprocessing, programs: ProgramSpec[]): void {
  const shape = [1, 3, spec.height, spec.width];
  const [program] = programs;
  const [input] = program!.inputs;
  const fits = input!.name === "pixels" && input!.dtype === "float32" && isSame(input!.shape, shape);
  if (programs.length !== 1 || program!.name !== "image" || program!.inputs.length !== 1 || !fits) {
    refuse(`programs: images have one program 'image' with one input 'pixels', float32 of shape ${shape.join(", ")}`);
  }
}

function isSame(found: number[], expected: number[]): boolean {
  return found.length === expected.length && found.every((side, index) => side === expected[index]);
}

function checkUnique(names: string[], what: string): void {
  const seen = new Set<string>();
  const twice = names.find((name) => seen.size === seen.add(name).size);
  if (twice !== undefined) refuse(`the ${what} ${shorten(twice)} occurs twice`);
}

/** The largest number that an input of a text may hold: ids number rows of a table, masks and types are 0 or 1. */
export function largestNumber(spec: TextPreprocessing, input: string): number {
  return input === "input_ids" ? (spec.vocabSize ?? MAX_INT + 1) - 1 : 1;
}
