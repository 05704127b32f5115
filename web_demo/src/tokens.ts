/** Answers that are places in the text that was given: spans of a context, entities of a text (BUNDLE.md has the rules). */

import { InputError } from "./errors.ts";
import { type Answer, onlyRow, softmax } from "./heads.ts";
import { type Aggregation, SPAN_ENDS, type SpanExtraction, type TokenLabels } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";
import type { Places, Prepared } from "./text.ts";

/** Spans of a window that are looked at beside two for each answer: several may be of the same words. */
const SPARE_CANDIDATES = 10;
const [SPECIAL, PAIR] = [-1, 1];
const [MAX_ANSWERS, MAX_ANSWER_TOKENS] = [100, 512];

type Outputs = Record<string, Tensor>;

/** `text` stands from code point `start` to before `end` of the context; empty: there is no answer. */
export interface AnswerSpan {
  text: string;
  start: number;
  end: number;
  score: number;
}

/** `answers` are best first; none where the context has no token that could be one. */
export interface SpanAnswer extends Answer {
  answers: AnswerSpan[];
}

/** `text` stands from code point `start` to before `end` of the text, and has the label. */
export interface Entity extends AnswerSpan {
  label: string;
}

/** `entities` are in the order of the text. */
export interface EntityAnswer extends Answer {
  entities: Entity[];
}

export interface SpanOptions {
  /** How many answers, 1 by default. */
  top?: number;
  /** One of them may be that the text has no answer: an empty one. */
  unanswerable?: boolean;
  /** The longest answer; by default as the bundle says. */
  maxAnswerTokens?: number;
}

export interface EntityOptions {
  /** How tokens become entities; by default as the bundle says. */
  aggregation?: Aggregation;
}

/** A window with the text that answers are places of. */
export interface Window extends Prepared {
  places: Places;
  source: string;
}

/**
 * The best answers of all windows of a question's context.
 *
 * @throws InputError options out of range.
 */
export function answerSpans(outputs: Outputs[], windows: Window[], head: SpanExtraction, options: SpanOptions = {}): SpanAnswer {
  const { top = 1, unanswerable = false, maxAnswerTokens = head.maxAnswerTokens } = options;
  if (!isWithin(top, MAX_ANSWERS)) throw new InputError(`top: expected 1 to ${MAX_ANSWERS} answers, found ${top}`);
  if (!isWithin(maxAnswerTokens, MAX_ANSWER_TOKENS)) {
    throw new InputError(`maxAnswerTokens: expected 1 to ${MAX_ANSWER_TOKENS}, found ${maxAnswerTokens}`);
  }
  const found = new Map<string, AnswerSpan>();
  let nothing = Infinity;
  windows.forEach(({ places, source }, index) => {
    const tokens = spanProbabilities(tokenLogits(outputs[index]!, places, SPAN_ENDS), places);
    nothing = Math.min(nothing, tokens.nothing);
    const characters = [...source];
    for (const span of bestSpans(tokens, maxAnswerTokens, 2 * top + SPARE_CANDIDATES)) {
      const [first, last] = wholeWords(places, span);
      const [start, end] = [places.tokens[first]!.start, places.tokens[last]!.end];
      const text = characters.slice(start, end).join("");
      const known = found.get(text.toLowerCase());
      found.set(text.toLowerCase(), known ? { ...known, score: known.score + span.score } : { text, start, end, score: span.score });
    }
  });
  const all = [...found.values(), ...(unanswerable ? [{ text: "", start: 0, end: 0, score: nothing }] : [])];
  return { answers: all.sort((a, b) => b.score - a.score).slice(0, top), truncated: false }; // stable
}

const isWithin = (value: number, most: number) => Number.isInteger(value) && value >= 1 && value <= most;

/** The only output's rows, flat, of the tokens that are no padding, finite. */
export function tokenLogits(outputs: Outputs, places: Places, width: number): Float32Array {
  return onlyRow(outputs).slice(0, places.tokens.length * width);
}

/** How probably an answer starts at each token of the context and ends there, and that there is none. */
export function spanProbabilities(logits: Float32Array, places: Places): { starts: number[]; ends: number[]; nothing: number } {
  // The first token, where it is a special one, stands for no answer.
  const rows = [...places.texts.keys()].filter((row) => places.texts[row] === PAIR || (row === 0 && places.texts[row] === SPECIAL));
  const [starts, ends] = [0, 1].map((column) => {
    const scores = softmax(rows.map((row) => logits[row * SPAN_ENDS + column]!));
    const all = places.texts.map(() => 0);
    rows.forEach((row, index) => (all[row] = scores[index]!));
    return all;
  }) as [number[], number[]];
  const nothing = starts[0]! * ends[0]!;
  starts[0] = ends[0] = 0;
  return { starts, ends, nothing };
}

interface TokenSpan {
  first: number;
  last: number;
  score: number;
}

/** The `count` best spans of more than no probability, best first, of equal ones the earliest. */
function bestSpans({ starts, ends }: { starts: number[]; ends: number[] }, longest: number, count: number): TokenSpan[] {
  const found: TokenSpan[] = [];
  starts.forEach((start, first) => {
    if (start === 0) return;
    for (let last = first; last < Math.min(first + longest, ends.length); last++) {
      const score = start * ends[last]!;
      if (score > 0) found.push({ first, last, score });
    }
  });
  return found.sort((a, b) => b.score - a.score).slice(0, count); // stable
}

/** A span of tokens with all of its first and last word that is in the window. */
function wholeWords({ tokens, texts }: Places, { first, last }: TokenSpan): [number, number] {
  const isSameWord = (one: number, other: number) => tokens[one]?.word === tokens[other]?.word && texts[one] === texts[other];
  while (first > 0 && isSameWord(first - 1, first)) first--;
  while (last + 1 < tokens.length && isSameWord(last, last + 1)) last++;
  return [first, last];
}

/** The entities of all windows of a text. */
export function findEntities(outputs: Outputs[], windows: Window[], head: TokenLabels, options: EntityOptions = {}): EntityAnswer {
  const { aggregation = head.aggregation } = options;
  let found: Labelled[] = [];
  let read = 0;
  windows.forEach(({ places }, index) => {
    const scores = labelProbabilities(tokenLogits(outputs[index]!, places, head.labels.length), head.labels.length);
    let tokens = places.tokens.flatMap((token, at) => (token === null ? [] : [{ ...token, scores: scores[at]! }]));
    if (aggregation === "none") {
      // A token that an earlier window has is that window's.
      tokens = tokens.filter((token) => token.start >= read);
      read = tokens[tokens.length - 1]?.end ?? read;
    }
    found.push(...aggregate(tokens, head.labels, aggregation).filter(({ label }) => !head.outside.includes(label)));
  });
  if (aggregation !== "none" && windows.length > 1) found = withoutOverlaps(found);
  const characters = [...windows[0]!.source];
  const entities = found.map((each) => ({ text: characters.slice(each.start, each.end).join(""), ...each }));
  return { entities, truncated: false };
}

/** Each token's probabilities, from its logits, `width` of them. */
export function labelProbabilities(logits: Float32Array, width: number): number[][] {
  return Array.from({ length: logits.length / width }, (_, row) => softmax(logits.subarray(row * width, (row + 1) * width)));
}

/** A token, or a whole word, with its probabilities. */
interface Scored {
  start: number;
  end: number;
  scores: number[];
  continues: boolean;
}

interface Labelled {
  start: number;
  end: number;
  label: string;
  score: number;
}

/** Tokens to entities, those of no entity among them. */
function aggregate(tokens: Scored[], labels: string[], aggregation: Aggregation): Labelled[] {
  const units = aggregation === "none" || aggregation === "simple" ? tokens : words(tokens, aggregation);
  const labelled = units.map(({ start, end, scores }) => {
    const best = bestOf(scores);
    return { start, end, label: labels[best]!, score: scores[best]! };
  });
  return aggregation === "none" ? labelled : grouped(labelled);
}

/** The first of the largest. */
const bestOf = (scores: number[]) => scores.reduce((best, score, index) => (score > scores[best]! ? index : best), 0);

function words(tokens: Scored[], aggregation: Aggregation): Scored[] {
  const found: Scored[][] = [];
  for (const token of tokens) {
    if (token.continues && found.length > 0) found[found.length - 1]!.push(token);
    else found.push([token]);
  }
  return found.map((word) => {
    const [first, last] = [word[0]!, word[word.length - 1]!];
    const surest = word.reduce((best, token) => (Math.max(...token.scores) > Math.max(...best.scores) ? token : best));
    const mean = () => first.scores.map((_, label) => word.reduce((sum, token) => sum + token.scores[label]!, 0) / word.length);
    const scores = aggregation === "first" ? first.scores : aggregation === "average" ? mean() : surest.scores;
    return { start: first.start, end: last.end, scores, continues: false };
  });
}

const tagOf = (label: string) => label.replace(/^[BI]-/, "");

function grouped(labelled: Labelled[]): Labelled[] {
  const groups: Labelled[][] = [];
  for (const each of labelled) {
    const before = groups[groups.length - 1];
    const joins = before !== undefined && !each.label.startsWith("B-") && tagOf(each.label) === tagOf(before[before.length - 1]!.label);
    if (joins) before.push(each);
    else groups.push([each]);
  }
  return groups.map((group) => {
    const [first, last] = [group[0]!, group[group.length - 1]!];
    const score = group.reduce((sum, each) => sum + each.score, 0) / group.length;
    return { start: first.start, end: last.end, label: first.label.slice(first.label.indexOf("-") + 1), score };
  });
}

/** Of entities of several windows that overlap the longest, of equally long ones the surest. */
function withoutOverlaps(found: Labelled[]): Labelled[] {
  const kept: Labelled[] = [];
  for (const each of found.toSorted((a, b) => a.start - b.start)) {
    const last = kept[kept.length - 1];
    if (last === undefined || each.start < last.start || each.start >= last.end) {
      kept.push(each);
      continue;
    }
    const longer = each.end - each.start - (last.end - last.start);
    if (longer > 0 || (longer === 0 && each.score > last.score)) kept[kept.length - 1] = each;
  }
  return kept;
}
