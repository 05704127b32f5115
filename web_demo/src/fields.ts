import { BundleError, shorten } from "./errors.ts";
import type { Json, JsonObject } from "./strict_json.ts";

type Range = readonly [least: number, most: number];
const ANY: Range = [0, Infinity];

/** The keys of a JSON object, each taken once and checked: what manifest.schema.json and cases.schema.json say. */
export class Fields {
  private readonly taken = new Set<string>();

  /** @param path where the object stands, for messages: "manifest.json: programs[0]". */
  private constructor(
    private readonly values: JsonObject,
    private readonly path: string,
  ) {}

  /** Reads an object, all of whose keys `read` must ask for. */
  static read<T>(value: Json | undefined, path: string, read: (fields: Fields) => T): T {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new BundleError(`${path}: expected object, found ${shorten(show(value))}`);
    }
    const fields = new Fields(value, path);
    const found = read(fields);
    const unknown = Object.keys(value).find((key) => !fields.taken.has(key));
    if (unknown === undefined) return found;
    const known = [...fields.taken].sort().join(", ");
    throw new BundleError(`${path}: unknown key ${shorten(unknown)}: expected only ${known}`);
  }

  string(key: string, pattern?: RegExp, length: Range = ANY): string {
    return this.text(key, this.required(key), pattern, length);
  }

  optionalString(key: string, pattern?: RegExp, length: Range = ANY): string | null {
    return this.required(key) === null ? null : this.string(key, pattern, length);
  }

  choice<T extends string>(key: string, choices: readonly T[]): T {
    const found = this.required(key);
    if (choices.includes(found as T)) return found as T;
    return this.fail(key, `expected one of ${choices.join(", ")}, found ${shorten(show(found))}`);
  }

  int(key: string, range: Range): number {
    return this.integer(key, this.required(key), range);
  }

  optionalInt(key: string, range: Range): number | null {
    return this.required(key) === null ? null : this.int(key, range);
  }

  /** A number from `least` to `most`; it may be written as an integer. */
  number(key: string, range: Range, isAboveLeast = false): number {
    return this.real(key, this.required(key), range, isAboveLeast);
  }

  numbers(key: string, count: Range, range: Range): number[] {
    return this.list(key, count).map((value, index) => this.real(`${key}[${index}]`, value, range));
  }

  boolean(key: string): boolean {
    const found = this.required(key);
    return typeof found === "boolean" ? found : this.fail(key, `expected boolean, found ${shorten(show(found))}`);
  }

  ints(key: string, count: Range, range: Range): number[] {
    return this.list(key, count).map((value, index) => this.integer(`${key}[${index}]`, value, range));
  }

  strings(key: string, count: Range, length: Range = ANY): string[] {
    return this.list(key, count).map((value, index) => this.text(`${key}[${index}]`, value, undefined, length));
  }

  objects<T>(key: string, count: Range, read: (fields: Fields) => T): T[] {
    return this.list(key, count).map((value, index) => Fields.read(value, `${this.path}: ${key}[${index}]`, read));
  }

  object<T>(key: string, read: (fields: Fields) => T): T {
    return Fields.read(this.required(key), `${this.path}: ${key}`, read);
  }

  /** An object whose keys are data, each read by `read(fields of all of them, key)`. */
  table<T>(key: string, count: Range, keyLength: Range, read: (fields: Fields, key: string) => T): Map<string, T> {
    return this.object(key, (fields) => {
      const keys = fields.keys;
      if (!within(keys.length, count)) this.fail(key, `expected ${count.join(" to ")} keys, found ${keys.length}`);
      return new Map(keys.map((name) => [fields.text(name, name, undefined, keyLength), read(fields, name)]));
    });
  }

  get keys(): string[] {
    return Object.keys(this.values);
  }

  /** Whether the key is there, for keys that may be missing. */
  has(key: string): boolean {
    return key in this.values;
  }

  /** The value of a key, which stays to be read. */
  peek(key: string): Json | undefined {
    return this.values[key];
  }

  /** The value of a key whose content is nobody's business here. */
  skip(key: string): Json {
    return this.required(key);
  }

  fail(key: string, problem: string): never {
    throw new BundleError(`${this.path}: ${key}: ${problem}`);
  }

  private required(key: string): Json {
    const found = this.values[key];
    if (found === undefined) throw new BundleError(`${this.path}: the key '${key}' is missing`);
    this.taken.add(key);
    return found;
  }

  private list(key: string, count: Range): Json[] {
    const found = this.required(key);
    if (!Array.isArray(found)) return this.fail(key, `expected array, found ${shorten(show(found))}`);
    if (!within(found.length, count)) this.fail(key, `expected ${count.join(" to ")} items, found ${found.length}`);
    return found;
  }

  private text(key: string, found: Json, pattern: RegExp | undefined, length: Range): string {
    if (typeof found !== "string") return this.fail(key, `expected string, found ${shorten(show(found))}`);
    if (length !== ANY && !within([...found].length, length)) this.fail(key, `expected ${length.join(" to ")} characters`);
    if (pattern?.test(found) === false) this.fail(key, `expected text like ${pattern}, found ${shorten(found)}`);
    return found;
  }

  private integer(key: string, found: Json, range: Range): number {
    if (typeof found !== "bigint") return this.fail(key, `expected integer, found ${shorten(show(found))}`);
    if (!within(Number(found), range)) this.fail(key, `expected ${range.join(" to ")}, found ${found}`);
    return Number(found);
  }

  private real(key: string, found: Json, range: Range, isAboveLeast = false): number {
    if (typeof found !== "bigint" && typeof found !== "number") {
      return this.fail(key, `expected number, found ${shorten(show(found))}`);
    }
    const value = Number(found);
    if (within(value, range) && !(isAboveLeast && value === range[0])) return value;
    return this.fail(key, `expected ${isAboveLeast ? "above " : ""}${range.join(" to ")}, found ${value}`);
  }
}

function within(value: number, [least, most]: Range): boolean {
  return value >= least && value <= most;
}

/** What `JSON.stringify` takes. */
function show(value: Json | undefined): unknown {
  return typeof value === "bigint" ? Number(value) : typeof value === "object" && value !== null ? "..." : value;
}
