/** The golden files of the repository, which pytest, JUnit and XCTest read too; tests/golden/README.md says what is in them. */

import { readFileSync } from "node:fs";
import { readSafetensors } from "../src/safetensors.ts";

const repository = process.env["EDGEFORMER_REPOSITORY"] ?? "..";

export function file(name: string): Uint8Array {
  return new Uint8Array(readFileSync(`${repository}/${name}`));
}

export function golden(name: string): Uint8Array {
  return file(`tests/golden/${name}`);
}

// What is in a golden file is what its own generator wrote.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function json(name: string): any {
  const found = JSON.parse(new TextDecoder().decode(golden(name)));
  if (!(found.cases.length > 0)) throw new Error(`${name} has no cases`);
  return found;
}

export function tensors(name: string) {
  return readSafetensors(golden(name), name);
}

/** A float, or the name of one. */
export function float(value: number | string): number {
  return Number(value);
}

/** The error's class as golden files name it; null: none. */
export async function errorName(work: () => unknown): Promise<string | null> {
  try {
    await work();
    return null;
  } catch (error) {
    return (error as Error).name;
  }
}
