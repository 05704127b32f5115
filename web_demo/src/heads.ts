import { EngineError } from "./errors.ts";
import type { Classification, Score } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";

/** What one answer cost, in milliseconds. */
export interface Statistics {
  preprocessMs: number;
  runMs: number;
  postprocessMs: number;
}

/** What every answer says of itself. */
export interface Answer {
  /** The input was too long and lost its end. */
  truncated: boolean;
  statistics?: Statistics;
}

/** Every label of the bundle with its probability, best first. */
export interface ClassificationAnswer extends Answer {
  label: string;
  score: number;
  labels: string[];
  scores: number[];
}

/** `vector` is (D) float32. */
export interface EmbeddingAnswer extends Answer {
  vector: Float32Array;
}

export interface ScoreAnswer extends Answer {
  score: number;
}

type Outputs = Record<string, Tensor>;

/** Labels and probabilities of logits (1, number of labels), best first; equal scores keep the bundle's order. */
export function classify(outputs: Outputs, head: Classification, truncated = false): ClassificationAnswer {
  const logits = onlyRow(outputs);
  const found = head.activation === "softmax" ? softmax(logits) : sigmoid(logits);
  const order = [...found.keys()].sort((a, b) => found[b]! - found[a]!); // stable
  const [labels, scores] = [order.map((index) => head.labels[index]!), order.map((index) => found[index]!)];
  return { label: labels[0]!, score: scores[0]!, labels, scores, truncated };
}

export function embed(outputs: Outputs, truncated = false): EmbeddingAnswer {
  return { vector: onlyRow(outputs).slice(), truncated };
}

export function score(outputs: Outputs, head: Score, truncated = false): ScoreAnswer {
  const row = onlyRow(outputs);
  return { score: head.activation === "sigmoid" ? sigmoid(row)[0]! : row[0]!, truncated };
}

/** Probabilities that sum to one, without overflow at any finite logits. */
export function softmax(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits);
  const largest = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const exponents = values.map((value) => Math.exp(value - largest));
  const total = exponents.reduce((sum, value) => sum + value, 0);
  return exponents.map((value) => value / total);
}

/** Independent probabilities, without overflow at any finite logits. */
export function sigmoid(logits: ArrayLike<number>): number[] {
  return Array.from(logits, (value) => {
    const small = Math.exp(-Math.abs(value));
    return value >= 0 ? 1 / (1 + small) : small / (1 + small);
  });
}

/**
 * The only output, finite.
 *
 * @throws EngineError it holds NaN or infinity.
 */
export function onlyRow(outputs: Outputs): Float32Array {
  const [[name, { data }]] = Object.entries(outputs) as [[string, Tensor]];
  if (data.every(Number.isFinite)) return data as Float32Array;
  throw new EngineError(`the model's output ${name} holds NaN or infinity: verify the bundle, or convert at a higher precision`);
}
