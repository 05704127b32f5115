/** JSON without surprises: no duplicate keys, no NaN, no half surrogates, bounded size and depth (BUNDLE.md, "JSON"). */

import { BundleError, shorten } from "./errors.ts";

const MAX_DEPTH = 32;

/** A parsed value. A number is a bigint where it is written without fraction and exponent: 1.0 is no integer. */
export type Json = null | boolean | number | bigint | string | Json[] | JsonObject;

/** An object without a prototype, so that no key means anything. */
export type JsonObject = { [key: string]: Json };

/**
 * Parses UTF-8 JSON from an untrusted file.
 *
 * @param where the file's name, for messages.
 * @throws BundleError not JSON, or JSON that other parsers would read differently.
 */
export function parseJson(data: Uint8Array, where: string, maxBytes: number): Json {
  if (data.length > maxBytes) throw new BundleError(`${where}: expected at most ${maxBytes} bytes, found ${data.length}`);
  return new Parser(decodeText(data, where), where).parse();
}

/** Strict UTF-8, as text; a byte order mark stays. */
export function decodeText(data: Uint8Array, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch (error) {
    throw new BundleError(`${where}: expected UTF-8 text`, { cause: error });
  }
}

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const TEXT = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WORD = /true|false|null/y;
const WORDS: Record<string, Json> = { true: true, false: false, null: null };

class Parser {
  private next = 0;

  constructor(
    private readonly text: string,
    private readonly where: string,
  ) {}

  parse(): Json {
    const value = this.value(0);
    this.take(SPACE);
    if (this.next < this.text.length) this.fail("expected the end");
    return value;
  }

  private value(depth: number): Json {
    if (depth > MAX_DEPTH) throw new BundleError(`${this.where}: nested deeper than ${MAX_DEPTH} levels`);
    this.take(SPACE);
    const first = this.text[this.next];
    if (first === "{") return this.object(depth);
    if (first === "[") return this.array(depth);
    if (first === '"') return this.string();
    const word = this.take(WORD);
    if (word !== null) return WORDS[word[0]]!;
    return this.number();
  }

  private object(depth: number): JsonObject {
    const found: JsonObject = Object.create(null);
    this.next++;
    if (this.ends("}")) return found;
    do {
      this.take(SPACE);
      if (this.text[this.next] !== '"') this.fail("expected a key");
      const key = this.string();
      if (key in found) throw new BundleError(`${this.where}: the key ${shorten(key)} occurs twice in one object`);
      this.take(SPACE);
      if (this.text[this.next++] !== ":") this.fail("expected ':'");
      found[key] = this.value(depth + 1);
    } while (this.goesOn("}"));
    return found;
  }

  private array(depth: number): Json {
    const found: Json[] = [];
    this.next++;
    if (this.ends("]")) return found;
    do found.push(this.value(depth + 1));
    while (this.goesOn("]"));
    return found;
  }

  private string(): string {
    const written = this.take(TEXT);
    if (written === null) return this.fail("expected a text that ends, without control characters and unknown escapes");
    const found = JSON.parse(written[0]) as string;
    if (/[\ud800-\udfff]/u.test(found)) {
      throw new BundleError(`${this.where}: ${shorten(found)} holds half of a surrogate pair: expected valid Unicode`);
    }
    return found;
  }

  private number(): number | bigint {
    const written = this.take(NUMBER);
    if (written === null) return this.fail("expected a value");
    if (written[1] === undefined && written[2] === undefined) return BigInt(written[0]);
    const value = Number(written[0]);
    if (Number.isFinite(value)) return value;
    throw new BundleError(`${this.where}: the number ${shorten(written[0])} is out of range`);
  }

  private ends(close: string): boolean {
    this.take(SPACE);
    if (this.text[this.next] !== close) return false;
    this.next++;
    return true;
  }

  private goesOn(close: string): boolean {
    if (this.ends(close)) return false;
    if (this.text[this.next++] !== ",") this.fail(`expected ',' or '${close}'`);
    return true;
  }

  private take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.next;
    const found = pattern.exec(this.text);
    if (found !== null) this.next = pattern.lastIndex;
    return found;
  }

  private fail(what: string): never {
    const before = this.text.slice(0, this.next);
    const line = before.split("\n").length;
    throw new BundleError(`${this.where}: not JSON: ${what} at line ${line}, column ${before.length - before.lastIndexOf("\n")}`);
  }
}
