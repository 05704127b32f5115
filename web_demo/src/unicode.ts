/**
 * Sets of code points and mappings of them, as the tokenizers library has them: browsers know another Unicode.
 *
 * tests/golden/make_unicode.py writes the tables and explains their encoding.
 */

import { UNICODE_TABLES as TABLES } from "./unicode_tables.ts";

const words = (table: string) => table.split(/\s+/).filter(Boolean);
const numbers = (table: string) => words(table).map((word) => parseInt(word, 36));

/** A set of code points from pairs of base 36: the gap behind the last range, and the length of this one. */
class CodePointSet {
  private readonly bounds: number[] = [];

  constructor(table: string) {
    let next = 0;
    for (const number of numbers(table)) this.bounds.push((next += number));
  }

  has(code: number): boolean {
    let [low, high] = [0, this.bounds.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.bounds[middle]! <= code) low = middle + 1;
      else high = middle;
    }
    return low % 2 === 1;
  }
}

/** Characters that cleaning removes. */
export const removed = new CodePointSet(TABLES.removed);
/** Characters that cleaning makes a space. */
export const blank = new CodePointSet(TABLES.blank);
/** Characters that get spaces around them. */
export const ideographs = new CodePointSet(TABLES.ideographs);
/** Marks that stripping of accents removes, after decomposition. */
export const nonspacing = new CodePointSet(TABLES.nonspacing);
/** Characters that separate words. */
export const whiteSpace = new CodePointSet(TABLES.whiteSpace);
/** Characters that are words of their own. */
export const punctuation = new CodePointSet(TABLES.punctuation);

const combining = combiningClasses();
const decomposed = mapping(TABLES.decomposed);
const lowered = mapping(TABLES.lowered);
const HANGUL = { first: 0xac00, last: 0xd7a3, vowels: 21, trails: 28 };

/** A text as code points. Each knows its origin: the place in the text that was given of what it was. */
export class CodePoints {
  constructor(
    readonly codes: number[] = [],
    readonly origins: number[] = [],
  ) {}

  static of(text: string): CodePoints {
    const codes = Array.from(text, (character) => character.codePointAt(0)!);
    return new CodePoints(codes, codes.map((_, index) => index));
  }

  get size(): number {
    return this.codes.length;
  }

  add(code: number, origin: number): void {
    this.codes.push(code);
    this.origins.push(origin);
  }

  /** What each code point becomes, none or several, with its origin. */
  flatMap(become: (code: number) => Iterable<number>): CodePoints {
    const result = new CodePoints();
    for (let index = 0; index < this.size; index++) {
      for (const code of become(this.codes[index]!)) result.add(code, this.origins[index]!);
    }
    return result;
  }

  /** The part from `start` to before `end`. */
  part(start: number, end: number): CodePoints {
    return new CodePoints(this.codes.slice(start, end), this.origins.slice(start, end));
  }

  string(start = 0, end = this.size): string {
    let text = "";
    for (let index = start; index < end; index++) text += String.fromCodePoint(this.codes[index]!);
    return text;
  }
}

/** Lower case, character by character, whatever stands around it. */
export function lowerCase(text: CodePoints): CodePoints {
  return text.flatMap((code) => lowered.get(code) ?? [code]);
}

/** Canonical decomposition (normalization form D of Unicode Standard Annex 15). */
export function decompose(text: CodePoints): CodePoints {
  // The first code point of each is told from what came in behind it: the library counts by these.
  const sorted = text.codes.flatMap((code) => decomposition(code).map((part, index) => ({ code: part, isFirst: index === 0 })));
  for (let start = 0; start < sorted.length; start++) {
    let end = start;
    while (end < sorted.length && combining.has(sorted[end]!.code)) end++;
    if (end - start > 1) {
      const marks = sorted.slice(start, end).sort((a, b) => combining.get(a.code)! - combining.get(b.code)!);
      marks.forEach((mark, index) => (sorted[start + index] = mark));
    }
    start = end;
  }
  const result = new CodePoints();
  let place = -1;
  for (const { code, isFirst } of sorted) {
    if (isFirst) place++;
    result.add(code, text.origins[Math.max(place, 0)]!);
  }
  return result;
}

/** The Unicode Standard, section 3.12: a syllable is a leading, a vowel and perhaps a trailing part. */
function decomposition(code: number): number[] {
  if (code < HANGUL.first || code > HANGUL.last) return decomposed.get(code) ?? [code];
  const index = code - HANGUL.first;
  const block = HANGUL.vowels * HANGUL.trails;
  const parts = [0x1100 + Math.floor(index / block), 0x1161 + Math.floor((index % block) / HANGUL.trails)];
  return index % HANGUL.trails === 0 ? parts : [...parts, 0x11a7 + (index % HANGUL.trails)];
}

function combiningClasses(): Map<number, number> {
  const found = new Map<number, number>();
  const table = numbers(TABLES.combining);
  let next = 0;
  for (let at = 0; at < table.length; at += 3) {
    const [gap, length, rank] = table.slice(at, at + 3) as [number, number, number];
    for (let index = 0; index < length; index++) found.set(next + gap + index, rank);
    next += gap + length;
  }
  return found;
}

function mapping(table: string): Map<number, number[]> {
  const found = new Map<number, number[]>();
  let code = 0;
  for (const entry of words(table)) {
    const [gap, targets] = entry.split(":") as [string, string];
    code += parseInt(gap, 36);
    found.set(code, targets.split("+").map((target) => parseInt(target, 36)));
  }
  return found;
}
