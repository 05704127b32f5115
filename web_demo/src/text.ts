import { BundleError, InputError, shorten } from "./errors.ts";
import { largestNumber, type ProgramSpec, type TextPreprocessing } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";
import type { Window } from "./tokens.ts";
import { type Token, WordPieceTokenizer, type WholeEncoding } from "./wordpiece.ts";

const MAX_CHARACTERS = 1_000_000;
/** Of a text that is read in windows: all of it goes through the tokenizer. */
const MAX_WINDOWED_CHARACTERS = 200_000;
/** Of one input: each is a run of the model. */
const MAX_WINDOWS = 4096;

/** A text, a text and its pair (such as a question and a context), or token ids with the special tokens among them. */
export type RawText = string | readonly [text: string, pair: string] | { tokenIds: readonly number[] };

/** A program and its inputs for one raw input, or for a window of it. */
export interface Prepared {
  program: string;
  inputs: Record<string, Tensor>;
  /** The raw input was longer than the largest bucket and lost its end. */
  truncated: boolean;
}

/** For each token of a window, null where it is special: its place, and the number of its text (-1: special). */
export interface Places {
  tokens: (Token | null)[];
  texts: number[];
}

/** Turns text into the inputs of the smallest bucket that fits, exactly as the checkpoint's own tokenizer does it. */
export class TextEncoder {
  private readonly buckets: ProgramSpec[];
  private readonly longest: number;
  private readonly tokenizer: WordPieceTokenizer | null;
  private readonly largestId: number;

  /** @throws BundleError the tokenizer file cannot be used. */
  constructor(
    private readonly spec: TextPreprocessing,
    tokenizer: Uint8Array | null,
    programs: ProgramSpec[],
  ) {
    this.buckets = programs.toSorted((a, b) => lengthOf(a) - lengthOf(b));
    this.longest = lengthOf(this.buckets[this.buckets.length - 1]!);
    this.tokenizer = tokenizer && WordPieceTokenizer.read(tokenizer, spec.tokenizer!);
    this.largestId = spec.vocabSize === null && this.tokenizer ? this.tokenizer.size - 1 : largestNumber(spec, "input_ids");
    const special = this.tokenizer?.specialTokens(false) ?? 0;
    if (special >= this.longest) {
      throw new BundleError(`${spec.tokenizer}: ${special} special tokens leave no room in ${this.longest} positions`);
    }
  }

  /** @throws InputError text that is no Unicode or too long, or token ids that the model does not have. */
  encode(raw: RawText): Prepared {
    if (typeof raw === "object" && "tokenIds" in raw) return this.encodeIds(raw.tokenIds);
    const [text, pair] = typeof raw === "string" ? [raw, null] : raw;
    const tokenizer = this.needTokenizer("takes token ids only");
    if (pair !== null && tokenizer.specialTokens(true) >= this.longest) {
      throw new InputError(`a pair of texts does not fit into the ${this.longest} positions of this bundle`);
    }
    const { ids, types, truncated } = tokenizer.encode(
      checked(text, MAX_CHARACTERS),
      pair === null ? null : checked(pair, MAX_CHARACTERS),
      this.longest,
    );
    this.checkIds(ids);
    return { ...this.padded(ids, types), truncated };
  }

  /**
   * All of a text, or of a text and its pair, in as many windows of the longest bucket as it takes. Windows divide the last
   * of the texts, the other stands whole in each. Neighbours share `stride` tokens, or half of what fits into a window
   * where that is no more.
   *
   * @throws InputError a text that no window or no tokenizer takes.
   */
  windows(text: string, pair: string | null, stride: number): Window[] {
    const tokenizer = this.needTokenizer("its answers are places in a text");
    const encoding = tokenizer.encodeWhole(
      checked(text, MAX_WINDOWED_CHARACTERS),
      pair === null ? null : checked(pair, MAX_WINDOWED_CHARACTERS),
    );
    this.checkIds(encoding.ids);
    const first = encoding.texts.indexOf(pair === null ? 0 : 1);
    const count = encoding.texts.filter((number) => number === (pair === null ? 0 : 1)).length;
    const around = encoding.ids.length - count;
    const room = this.longest - around;
    if (room < 1) {
      throw new InputError(
        `${around} tokens stand in every window, special ones included, and fill the ${this.longest} positions of this ` +
          "bundle: shorten the first text",
      );
    }
    const shared = stride < room ? stride : Math.floor(room / 2);
    const starts = [0];
    while (starts[starts.length - 1]! + room < count) starts.push(starts[starts.length - 1]! + room - shared);
    if (starts.length > MAX_WINDOWS) {
      throw new InputError(`the text takes ${starts.length} windows: expected at most ${MAX_WINDOWS}`);
    }
    const divided = count === 0 ? encoding.ids.length : first;
    return starts.map((start) => {
      const isKept = (at: number) => at < divided || at >= divided + count || (at >= divided + start && at < divided + start + room);
      return { ...this.window(encoding, [...encoding.ids.keys()].filter(isKept)), source: pair ?? text };
    });
  }

  private window(encoding: WholeEncoding, kept: number[]): Omit<Window, "source"> {
    const take = <T>(values: T[]) => kept.map((index) => values[index]!);
    const places = { tokens: take(encoding.tokens), texts: take(encoding.texts) };
    return { ...this.padded(take(encoding.ids), take(encoding.types)), places };
  }

  private needTokenizer(why: string): WordPieceTokenizer {
    if (this.tokenizer === null) throw new InputError(`this bundle has no tokenizer: ${why}`);
    return this.tokenizer;
  }

  private checkIds(ids: number[]): void {
    const largest = ids.reduce((most, id) => Math.max(most, id), 0);
    if (largest > this.largestId) {
      throw new InputError(`the tokenizer gave token id ${largest}, this model's are 0 to ${this.largestId}`);
    }
  }

  private encodeIds(ids: readonly number[]): Prepared {
    if (ids.length === 0) throw new InputError("expected at least one token id, found none");
    const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id <= this.largestId));
    if (wrong !== undefined) throw new InputError(`token id ${wrong} is out of range: this model's are 0 to ${this.largestId}`);
    const kept = ids.slice(0, this.longest);
    return { ...this.padded(kept, kept.map(() => 0)), truncated: ids.length > this.longest };
  }

  private padded(ids: number[], types: number[]): Prepared {
    const program = this.buckets.find((bucket) => lengthOf(bucket) >= ids.length)!;
    const length = lengthOf(program);
    const rows: Record<string, (index: number) => number> = {
      input_ids: (index) => ids[index] ?? this.spec.padTokenId,
      attention_mask: (index) => (index < ids.length ? 1 : 0),
      token_type_ids: (index) => types[index] ?? 0,
    };
    const inputs = program.inputs.map(({ name }) => {
      const data = Int32Array.from({ length }, (_, index) => rows[name]!(index));
      return [name, { shape: [1, length], data }] satisfies [string, Tensor];
    });
    return { program: program.name, inputs: Object.fromEntries(inputs), truncated: false };
  }
}

const lengthOf = (program: ProgramSpec) => program.inputs[0]!.shape[1]!;

/** Text that the tokenizer can take: bounded, and without lone surrogates, which have no UTF-8. */
function checked(text: string, most: number): string {
  if (typeof text !== "string") throw new InputError(`expected a text, found ${shorten(text)}`);
  const lone = /[\ud800-\udfff]/u.exec(text);
  if (lone !== null) throw new InputError(`the text is not valid Unicode: half of a surrogate pair at ${lone.index}`);
  let characters = text.length;
  if (characters > most) characters -= text.match(/[\u{10000}-\u{10ffff}]/gu)?.length ?? 0;
  if (characters > most) throw new InputError(`the text has ${characters} characters: expected at most ${most}`);
  return text;
}
