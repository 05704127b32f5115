/**
 * Tokenizers of BERT's kind, from a file of the tokenizers library: added tokens are found, the rest is normalized, split
 * at white space and punctuation, and each word into the longest pieces of the vocabulary (Devlin et al. 2019).
 */

import { BundleError, shorten } from "./errors.ts";
import { Fields } from "./fields.ts";
import { parseJson } from "./strict_json.ts";
import { blank, CodePoints, decompose, ideographs, lowerCase, nonspacing, punctuation, removed, whiteSpace } from "./unicode.ts";

const MAX_FILE_BYTES = 64 << 20;
const MAX_ID = 2 ** 31 - 1;
const MAX_TOKEN_CHARACTERS = 1024;
const SPACE = 0x20;

/** A token of a text, with its place in code points of the text that was given and the number of its word. */
export interface Token {
  id: number;
  start: number;
  end: number;
  word: number;
  /** It continues the word of the token before it, as transformers sees it. */
  continues: boolean;
}

/** Token ids of a text or pair with its special tokens. */
export interface Encoding {
  ids: number[];
  types: number[];
  truncated: boolean;
}

/** A text or pair with its special tokens, whole: tokens are null and texts -1 for special ones. */
export interface WholeEncoding {
  ids: number[];
  types: number[];
  tokens: (Token | null)[];
  texts: number[];
}

/** A part of what surrounds texts: number `text` of them, or a special token's id; with its token type. */
interface Part {
  text: number | null;
  id: number;
  type: number;
}

interface AddedToken {
  id: number;
  content: string;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
}

interface Piece {
  text: CodePoints;
  token: AddedToken | null;
}

type Normalizer = (text: CodePoints) => CodePoints;

export class WordPieceTokenizer {
  private readonly raw: AddedTokens;
  private readonly normalized: AddedTokens;

  constructor(
    readonly normalize: Normalizer,
    private readonly added: AddedToken[],
    private readonly model: WordPiece,
    private readonly single: Part[],
    private readonly pair: Part[],
  ) {
    const contents = (isNormalized: boolean, of: Normalizer) =>
      added.filter((token) => token.normalized === isNormalized).map((token) => [of(CodePoints.of(token.content)), token] as const);
    this.raw = new AddedTokens(contents(false, (text) => text));
    this.normalized = new AddedTokens(contents(true, normalize));
  }

  /**
   * Opens a file of the tokenizers library.
   *
   * @throws BundleError it is no such file, or does what only that library can do.
   */
  static read(file: Uint8Array, name: string): WordPieceTokenizer {
    try {
      return Fields.read(parseJson(file, name, MAX_FILE_BYTES), name, readTokenizer);
    } catch (error) {
      if (!(error instanceof BundleError)) throw error;
      throw new BundleError(`${shorten(name)}: not a tokenizer that this library can follow: ${error.message}`, { cause: error });
    }
  }

  /** One more than the largest id that can come out. */
  get size(): number {
    return 1 + this.added.reduce((most, token) => Math.max(most, token.id), this.model.largestId);
  }

  /** The special tokens around one text, or around two. */
  specialTokens(isPair: boolean): number {
    return (isPair ? this.pair : this.single).filter((part) => part.text === null).length;
  }

  /** Encodes a text, or a pair, in at most `longest` tokens, special ones included; there must be room for these. */
  encode(text: string, second: string | null, longest: number): Encoding {
    const isPair = second !== null;
    const texts = (isPair ? [text, second] : [text]).map((given) => this.tokens(given).map((token) => token.id));
    const lengths = truncated(texts.map((ids) => ids.length), longest - this.specialTokens(isPair));
    const ids: number[] = [];
    const types: number[] = [];
    for (const part of isPair ? this.pair : this.single) {
      const found = part.text === null ? [part.id] : texts[part.text]!.slice(0, lengths[part.text]);
      for (const id of found) {
        ids.push(id);
        types.push(part.type);
      }
    }
    return { ids, types, truncated: lengths.some((length, index) => length !== texts[index]!.length) };
  }

  /** Encodes a text, or a pair of them, and cuts nothing. */
  encodeWhole(text: string, second: string | null): WholeEncoding {
    const isPair = second !== null;
    const texts = (isPair ? [text, second] : [text]).map((given) => this.tokens(given));
    const found: WholeEncoding = { ids: [], types: [], tokens: [], texts: [] };
    for (const part of isPair ? this.pair : this.single) {
      for (const token of part.text === null ? [null] : texts[part.text]!) {
        found.ids.push(token?.id ?? part.id);
        found.types.push(part.type);
        found.tokens.push(token);
        found.texts.push(part.text ?? -1);
      }
    }
    return found;
  }

  private tokens(text: string): Token[] {
    const given = CodePoints.of(text);
    const found: Token[] = [];
    const nextWord = () => (found.length === 0 ? 0 : found[found.length - 1]!.word + 1);
    for (const piece of this.raw.split(given)) {
      if (piece.token !== null) {
        found.push(this.model.added(piece.text, piece.token, nextWord()));
        continue;
      }
      for (const inner of this.normalized.split(this.normalize(piece.text))) {
        if (inner.token !== null) found.push(this.model.added(inner.text, inner.token, nextWord()));
        else for (const word of wordsOf(inner.text)) this.model.addPieces(word, found, nextWord());
      }
    }
    if (this.model.marksContinuation) return found;
    // Without a mark, a token continues a word where no space stands before it and it begins with none.
    return found.map((token) => {
      const isSpaced = token.start === 0 || given.codes[token.start - 1] === SPACE || given.codes[token.start] === SPACE;
      return { ...token, continues: !this.model.isUnknown(token.id) && !isSpaced };
    });
  }
}

/** Lengths that add up to at most `room`; the longest loses first, and of two long ones the second keeps more. */
function truncated(lengths: number[], room: number): number[] {
  const [first, second] = lengths as [number, number | undefined];
  if (second === undefined) return [Math.min(first, room)];
  if (first + second <= room) return lengths;
  const shorter = Math.min(first, second);
  // What is left where both are cut; else the shorter one stays whole and the other gets the rest.
  const least = 2 * shorter >= room ? Math.floor(room / 2) : shorter;
  return first <= second ? [least, room - least] : [room - least, least];
}

/** Words between white space; a punctuation mark is one of its own. */
function* wordsOf(text: CodePoints): Iterable<CodePoints> {
  let start = 0;
  for (let index = 0; index <= text.size; index++) {
    const code = text.codes[index];
    const isMark = code !== undefined && punctuation.has(code);
    if (code !== undefined && !isMark && !whiteSpace.has(code)) continue;
    if (index > start) yield text.part(start, index);
    if (isMark) yield text.part(index, index + 1);
    start = index + 1;
  }
}

/** Finds added tokens in texts: at each place from the left the longest one. */
class AddedTokens {
  private readonly byFirst = new Map<number, (readonly [CodePoints, AddedToken])[]>();

  constructor(tokens: (readonly [CodePoints, AddedToken])[]) {
    for (const entry of tokens.toSorted((a, b) => b[0].size - a[0].size)) {
      const first = entry[0].codes[0];
      if (first !== undefined) this.byFirst.set(first, [...(this.byFirst.get(first) ?? []), entry]);
    }
  }

  split(text: CodePoints): Piece[] {
    const { codes } = text;
    const pieces: Piece[] = [];
    let done = 0;
    for (let next = 0; next < text.size; next++) {
      const found = this.byFirst.get(codes[next]!)?.find(([content]) => content.codes.every((code, at) => code === codes[next + at]));
      if (found === undefined) continue;
      const [content, token] = found;
      let [start, end] = [next, next + content.size];
      next = end - 1;
      if (token.lstrip) while (start > done && whiteSpace.has(codes[start - 1]!)) start--;
      if (token.rstrip) while (end < text.size && whiteSpace.has(codes[end]!)) end++;
      start = Math.max(start, done);
      if (start > done) pieces.push({ text: text.part(done, start), token: null });
      pieces.push({ text: text.part(start, end), token });
      done = end;
    }
    if (done < text.size) pieces.push({ text: text.part(done, text.size), token: null });
    return pieces;
  }
}

/** The vocabulary, and how words become pieces of it: the longest piece first, then the longest that continues it. */
class WordPiece {
  private readonly prefixLength: number;

  constructor(
    private readonly vocabulary: Map<string, number>,
    private readonly prefix: string,
    private readonly unknown: number,
    private readonly longestWord: number,
  ) {
    this.prefixLength = [...prefix].length;
  }

  get largestId(): number {
    return [...this.vocabulary.values()].reduce((most, id) => Math.max(most, id), -1);
  }

  /** Whether pieces that continue a word look otherwise than those that begin one. */
  get marksContinuation(): boolean {
    return this.prefix !== "";
  }

  isUnknown(id: number): boolean {
    return id === this.unknown;
  }

  /** An added token that was found. */
  added(text: CodePoints, token: AddedToken, word: number): Token {
    return this.token(token.id, text, 0, text.size, [...token.content].length, word);
  }

  addPieces(word: CodePoints, found: Token[], number: number): void {
    const before = found.length;
    let start = 0;
    while (start < word.size && word.size <= this.longestWord) {
      let end = word.size;
      let id: number | undefined;
      while (end > start) {
        const piece = word.string(start, end);
        id = this.vocabulary.get(start > 0 ? this.prefix + piece : piece);
        if (id !== undefined) break;
        end--;
      }
      if (id === undefined) break;
      found.push(this.token(id, word, start, end, end - start + (start > 0 ? this.prefixLength : 0), number));
      start = end;
    }
    if (start < word.size) {
      found.length = before;
      found.push(this.token(this.unknown, word, 0, word.size, 0, number));
    }
  }

  /** A token of a part of a word, whose own length is that of what the vocabulary has. */
  private token(id: number, text: CodePoints, from: number, to: number, length: number, word: number): Token {
    const [start, end] = [text.origins[from]!, text.origins[to - 1]! + 1];
    return { id, start, end, word, continues: id !== this.unknown && length !== end - start };
  }
}

function readTokenizer(fields: Fields): WordPieceTokenizer {
  // What a pipeline decides for itself, and what only the way back to text needs.
  ["version", "truncation", "padding", "decoder"].filter((key) => fields.has(key)).forEach((key) => fields.skip(key));
  fields.object("pre_tokenizer", (splits) => splits.choice("type", ["BertPreTokenizer"]));
  const text: Part[] = [{ text: 0, id: 0, type: 0 }];
  const [single, pair] = isNull(fields, "post_processor")
    ? [text, [...text, { text: 1, id: 0, type: 1 }]]
    : fields.object("post_processor", readFrame);
  const normalize = isNull(fields, "normalizer") ? (given: CodePoints) => given : fields.object("normalizer", readNormalizer);
  const added = fields.objects("added_tokens", [0, 100_000], readAddedToken);
  return new WordPieceTokenizer(normalize, added, fields.object("model", readModel), single!, pair!);
}

function isNull(fields: Fields, key: string): boolean {
  return fields.peek(key) === null && fields.skip(key) === null;
}

/** What BERT's tokenizers do to a text before they split it (`BertNormalizer` of the tokenizers library). */
function readNormalizer(fields: Fields): Normalizer {
  fields.choice("type", ["BertNormalizer"]);
  const lowercase = fields.boolean("lowercase");
  const strip = isNull(fields, "strip_accents") ? lowercase : fields.boolean("strip_accents");
  const [clean, chinese] = [fields.boolean("clean_text"), fields.boolean("handle_chinese_chars")];
  return (text) => {
    let result = text;
    if (clean) result = result.flatMap((code) => (blank.has(code) ? [SPACE] : removed.has(code) ? [] : [code]));
    if (chinese) result = result.flatMap((code) => (ideographs.has(code) ? [SPACE, code, SPACE] : [code]));
    if (strip) result = decompose(result).flatMap((code) => (nonspacing.has(code) ? [] : [code]));
    return lowercase ? lowerCase(result) : result;
  };
}

function readAddedToken(fields: Fields): AddedToken {
  fields.boolean("special");
  if (fields.boolean("single_word")) fields.fail("single_word", "such tokens are not supported: convert without them");
  return {
    id: fields.int("id", [0, MAX_ID]),
    content: fields.string("content", undefined, [1, MAX_TOKEN_CHARACTERS]),
    lstrip: fields.boolean("lstrip"),
    rstrip: fields.boolean("rstrip"),
    normalized: fields.boolean("normalized"),
  };
}

function readModel(fields: Fields): WordPiece {
  fields.choice("type", ["WordPiece"]);
  const vocabulary = fields.table("vocab", [0, Infinity], [0, MAX_TOKEN_CHARACTERS], (ids, token) => ids.int(token, [0, MAX_ID]));
  const unknown = fields.string("unk_token");
  const id = vocabulary.get(unknown) ?? fields.fail("unk_token", `${shorten(unknown)} is no token`);
  const prefix = fields.string("continuing_subword_prefix", undefined, [0, 64]);
  return new WordPiece(vocabulary, prefix, id, fields.int("max_input_chars_per_word", [0, 200]));
}

function readFrame(fields: Fields): [Part[], Part[]] {
  if (fields.choice("type", ["TemplateProcessing", "BertProcessing"]) === "BertProcessing") {
    const [sep, cls] = ["sep", "cls"].map((key): Part => {
      const value = fields.skip(key);
      const id = Array.isArray(value) && typeof value[1] === "bigint" ? Number(value[1]) : fields.fail(key, "expected a token and its id");
      return { text: null, id, type: 0 };
    }) as [Part, Part];
    const first = [cls, { text: 0, id: 0, type: 0 }, sep];
    return [first, [...first, { text: 1, id: 0, type: 1 }, { ...sep, type: 1 }]];
  }
  const ids = fields.table("special_tokens", [0, 1000], [0, 1000], (all, token) =>
    all.object(token, (special) => {
      special.skip("id");
      special.skip("tokens");
      return special.ints("ids", [1, 1], [0, MAX_ID])[0]!;
    }),
  );
  const template = (key: string, texts: number[]) => {
    const parts = fields.objects(key, [1, 32], (part) => readPart(part, ids));
    const found = parts.flatMap((part) => part.text ?? []);
    if (String(found) !== String(texts)) fields.fail(key, "expected each text once");
    return parts;
  };
  return [template("single", [0]), template("pair", [0, 1])];
}

function readPart(fields: Fields, ids: Map<string, number>): Part {
  if (!fields.has("SpecialToken")) {
    return fields.object("Sequence", (text) => ({
      text: text.choice("id", ["A", "B"]) === "A" ? 0 : 1,
      id: 0,
      type: text.int("type_id", [0, 1]),
    }));
  }
  return fields.object("SpecialToken", (token) => {
    const name = token.string("id");
    const id = ids.get(name) ?? token.fail("id", `unknown special token ${shorten(name)}`);
    return { text: null, id, type: token.int("type_id", [0, 1]) };
  });
}
