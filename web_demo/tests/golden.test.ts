/** The golden files: the same cases that Python, Kotlin and Swift pass. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { type Bundle, openBundle } from "../src/bundle.ts";
import type { Engine } from "../src/engines.ts";
import { EngineError } from "../src/errors.ts";
import { classify } from "../src/heads.ts";
import { ImageEncoder, normalisationTable } from "../src/image.ts";
import { type ImagePreprocessing, parseManifest } from "../src/manifest.ts";
import { type EntityFinder, pipelineOf, type QuestionAnswerer } from "../src/pipelines.ts";
import { readSafetensors, type Tensor } from "../src/safetensors.ts";
import { checkRelease, checkRequired, checkSignature, parseRelease } from "../src/signature.ts";
import { CodePoints, decompose, nonspacing, punctuation, whiteSpace } from "../src/unicode.ts";
import { verify } from "../src/verify.ts";
import { WordPieceTokenizer } from "../src/wordpiece.ts";
import { readZip } from "../src/zip.ts";
import { errorName, file, float, golden, json, tensors } from "./golden.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, "hex"));

test("manifests are taken or refused", async () => {
  const { cases } = json("manifests.json");
  const texts = new Map(cases.filter((each: any) => "text" in each).map((each: any) => [each.name, each.text]));
  let count = 0;
  for (const { name, text, base, find, put, error, facts } of cases) {
    const whole = (text ?? texts.get(base)) as string;
    // What is inside a speech manifest's records is not read here: this library runs no speech.
    if (JSON.parse(whole).task === "speech-recognition") continue;
    const found = await errorName(() => parseManifest(bytes(text ?? whole.replace(find, () => put))));
    assert.equal(found, error ?? null, name);
    count++;
    if (facts === undefined) continue;
    const manifest = parseManifest(bytes(text));
    for (const key of ["name", "task", "target"] as const) if (key in facts) assert.equal(manifest[key], facts[key], name);
  }
  assert.ok(count > 100);
});

test("zips with hidden bytes", async () => {
  const { base, cases } = json("zips.json");
  const whole = [...golden(base)];
  for (const { name, splices, error, canonical } of cases) {
    const zip = whole.slice();
    for (const [start, end, digits] of splices.toReversed()) zip.splice(start, end - start, ...unhex(digits));
    assert.equal(await errorName(() => openBundle(Uint8Array.from(zip))), error, name);
    assert.equal((await errorName(() => readZip(Uint8Array.from(zip), true))) === null, canonical, name);
  }
});

test("signatures", async () => {
  const { manifest, cases } = json("signatures.json");
  for (const { name, keys, signature, error } of cases) {
    const given = keys?.map(unhex);
    const found = await errorName(async () => {
      checkRequired(given === undefined ? {} : { keys: given });
      await checkSignature(signature === null ? undefined : unhex(signature), bytes(manifest), given);
    });
    assert.equal(found, error, name);
  }
});

test("releases", async () => {
  const { bundle, cases, required } = json("releases.json");
  for (const { name, text, version } of cases) {
    const found = await errorName(() => parseRelease(bytes(text), bundle));
    assert.equal(found === null ? parseRelease(bytes(text), bundle) : null, version, name);
  }
  for (const { name, bundle: found, found: release, required: wanted, error } of required) {
    const given = { ...(wanted.name !== null && { name: wanted.name }), ...(wanted.version !== null && { leastVersion: wanted.version }) };
    const check = () => {
      checkRequired(given);
      checkRelease(given, found, release);
    };
    assert.equal(await errorName(check), error, name);
  }
});

test("every code point", () => {
  const { block, blocks, cases } = json("unicode.json");
  const all = { clean_text: true, handle_chinese_chars: true, strip_accents: true, lowercase: true };
  const none = { clean_text: false, handle_chinese_chars: false, strip_accents: false, lowercase: false };
  const normalizers = {
    all: normalizer(all),
    clean: normalizer({ ...none, clean_text: true }),
    chinese: normalizer({ ...none, handle_chinese_chars: true }),
    strip: normalizer({ ...none, strip_accents: true }),
    lower: normalizer({ ...none, lowercase: true }),
  };
  for (const { first, ...hashes } of blocks) {
    const codes = Array.from({ length: block }, (_, index) => first + index).filter((code) => code < 0xd800 || code > 0xdfff);
    for (const [name, normalize] of Object.entries(normalizers)) {
      assert.equal(hashOf(codes.map((code) => normalize(String.fromCodePoint(code)))), hashes[name], `${name} from ${first}`);
    }
    const words = codes.map((code) => {
      const character = String.fromCodePoint(code);
      return punctuation.has(code) ? `a|${character}|b` : whiteSpace.has(code) ? "a|b" : `a${character}b`;
    });
    assert.equal(hashOf(words), hashes.split, `split from ${first}`);
  }
  for (const { text, normalized } of cases) assert.equal(normalizers.all(text), normalized);
  const marks = decompose(CodePoints.of("a\u0323\u0301")).codes;
  assert.ok(nonspacing.has(marks[1]!));
});

test("word pieces", () => {
  const { tokenizers, cases } = json("wordpiece.json");
  const opened = new Map(
    Object.entries(tokenizers as Record<string, string>).map(([name, text]) => [
      name,
      WordPieceTokenizer.read(text.startsWith("{") ? bytes(text) : file(text), name),
    ]),
  );
  for (const { tokenizer, text, pair, max, ids, types, truncated } of cases) {
    assert.deepEqual(opened.get(tokenizer)!.encode(text, pair, max), { ids, types, truncated }, text);
  }
});

test("places of tokens", () => {
  const { tokenizers, cases: texts } = json("wordpiece.json");
  let count = 0;
  for (const { kind, of, starts, ends, texts: numbers, continues } of json("places.json").cases) {
    if (kind !== "tokens") continue;
    const { tokenizer, text, pair } = texts[of];
    const source = tokenizers[tokenizer] as string;
    const reader = WordPieceTokenizer.read(source.startsWith("{") ? bytes(source) : file(source), tokenizer);
    const found = reader.encodeWhole(text, pair);
    assert.deepEqual(found.tokens.map((token) => token?.start ?? 0), starts);
    assert.deepEqual(found.tokens.map((token) => token?.end ?? 0), ends);
    assert.deepEqual(found.texts, numbers);
    assert.deepEqual(found.tokens.map((token) => Number(token?.continues ?? false)), continues);
    count++;
  }
  assert.ok(count > 100);
});

/** Row of logits for the id i at position p: ((7919 i + 104729 p + 15485863 c) mod 65521) / 8192 in column c. */
function formulaEngine(width: number): Engine {
  const run = async (_: string, inputs: Record<string, Tensor>) => {
    const ids = [...inputs["input_ids"]!.data];
    const data = Float32Array.from(
      ids.flatMap((id, at) => Array.from({ length: width }, (_, column) => ((7919 * id + 104729 * at + 15485863 * column) % 65521) / 8192)),
    );
    return { logits: { shape: [1, ids.length, width], data } };
  };
  return { executedBy: "a formula", run, close: () => undefined };
}

test("answers to questions", async () => {
  const bundle = await openBundle(golden("places-spans.zip"));
  const pipeline = pipelineOf(bundle, formulaEngine(2)) as QuestionAnswerer;
  let count = 0;
  for (const { kind, question, context, top, unanswerable, max_answer_tokens: most, answers } of json("places.json").cases) {
    if (kind !== "spans") continue;
    const options = { top, unanswerable, ...(most !== null && { maxAnswerTokens: most }) };
    const found = (await pipeline.run([question, context], options)).answers;
    assert.deepEqual(found.map(({ start, end }) => [start, end]), answers.map((each: number[]) => each.slice(0, 2)), context);
    found.forEach(({ score }, index) => assert.ok(Math.abs(score - answers[index][2]) <= 1e-5));
    count++;
  }
  assert.ok(count > 10);
});

test("entities of texts", async () => {
  const bundle = await openBundle(golden("places-entities.zip"));
  const { labels } = bundle.manifest.postprocessing as { labels: string[] };
  const pipeline = pipelineOf(bundle, formulaEngine(labels.length)) as EntityFinder;
  let count = 0;
  for (const { kind, text, aggregation, entities } of json("places.json").cases) {
    if (kind !== "entities") continue;
    const found = (await pipeline.run(text, { aggregation })).entities;
    assert.deepEqual(found.map(({ start, end, label }) => [start, end, label]), entities.map((each: unknown[]) => each.slice(0, 3)), text);
    found.forEach(({ score }, index) => assert.ok(Math.abs(score - entities[index][3]) <= 1e-5));
    count++;
  }
  assert.ok(count > 10);
});

/** Answers with the recorded outputs of the case that has these inputs, each value moved by `shift`. */
function recordedEngine(bundle: Bundle, shift: number): Engine {
  const recorded = readSafetensors(bundle.bytes("vectors/tensors.safetensors"), "tensors");
  const count = new Set([...recorded.keys()].map((key) => key.split("/")[0])).size;
  const run = async (name: string, inputs: Record<string, Tensor>) => {
    const program = bundle.manifest.programs.find((each) => each.name === name)!;
    for (let index = 0; index < count; index++) {
      const fits = program.inputs.every((input) => String(recorded.get(`${index}/${input.name}`)?.data) === String(inputs[input.name]!.data));
      if (!fits) continue;
      const outputs = program.outputs.map(({ name: output, shape }) => {
        const { data } = recorded.get(`${index}/${output}`)!;
        return [output, { shape, data: Float32Array.from(data, (value: number, at: number) => value + (at % 3 ? shift : -shift)) }];
      });
      return Object.fromEntries(outputs);
    }
    throw new EngineError("not recorded");
  };
  return { executedBy: "what was recorded", run, close: () => undefined };
}

for (const name of ["tiny-text", "tiny-score", "tiny-spans", "tiny-entities"]) {
  test(`self-test of ${name}`, async () => {
    const bundle = await openBundle(golden(`${name}.zip`));
    const right = await verify(pipelineOf(bundle, recordedEngine(bundle, 0)));
    assert.ok(right.ok, JSON.stringify(right.stages));
    const wrong = await verify(pipelineOf(bundle, recordedEngine(bundle, 1)));
    assert.equal(wrong.firstDiverging, bundle.manifest.programs[0]!.name);
    assert.equal(wrong.stages.at(-1)!.ok, false);
  });
}

test("scores of logits", async () => {
  for (const { activation, logits, error, order, scores } of json("heads.json").cases) {
    const outputs = { logits: { shape: [1, logits.length], data: Float32Array.from(logits.map(float)) } };
    const labels = logits.map((_: unknown, index: number) => String(index));
    const head = { kind: "classification" as const, labels, activation };
    assert.equal(await errorName(() => classify(outputs, head)), error);
    if (error !== null) continue;
    const found = classify(outputs, head);
    assert.deepEqual(found.labels, order.map(String));
    found.scores.forEach((score, index) => assert.ok(Math.abs(score - scores[index]) <= 1e-6));
  }
});

test("images, bit for bit", () => {
  const arrays = tensors("image.safetensors");
  for (const [index, { name, preprocessing: each }] of json("image.json").cases.entries()) {
    const spec: ImagePreprocessing = { ...each, resizeShortSide: each.resize_short_side };
    const { shape, data } = arrays.get(`${index}/image`)!;
    const image = { width: shape[1]!, height: shape[0]!, channels: 3 as const, data: data as Uint8Array };
    assert.deepEqual(new ImageEncoder(spec).levels(image), arrays.get(`${index}/levels`)!.data, name);
    const table = Float32Array.from(normalisationTable(spec).flatMap((row) => [...row]));
    assert.deepEqual(table, arrays.get(`${index}/table`)!.data, name);
  }
});

test("bundles open, and damaged ones do not", async () => {
  const zip = golden("tiny-text.zip");
  const bundle = await openBundle(zip);
  assert.equal(bundle.manifest.task, "text-classification");
  assert.equal(await errorName(() => openBundle(zip, { name: "another" })), "BundleError");
  const at = zip.length >> 1;
  const damaged = zip.slice();
  damaged[at] = damaged[at]! ^ 1;
  assert.equal(await errorName(() => openBundle(damaged)), "BundleError");
  assert.equal(await errorName(() => openBundle(zip.subarray(0, at))), "BundleError");
});

function hashOf(values: string[]): string {
  return createHash("sha256").update(values.map((value) => `${value}\n`).join("")).digest("hex").slice(0, 16);
}

/** A normalizer with these flags, through the reader of tokenizer files. */
function normalizer(flags: Record<string, boolean>): (text: string) => string {
  const document = {
    added_tokens: [],
    normalizer: { type: "BertNormalizer", ...flags },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: null,
    model: { type: "WordPiece", unk_token: "?", continuing_subword_prefix: "", max_input_chars_per_word: 1, vocab: { "?": 0 } },
  };
  const tokenizer = WordPieceTokenizer.read(bytes(JSON.stringify(document)), "golden");
  return (text) => tokenizer.normalize(CodePoints.of(text)).string();
}
