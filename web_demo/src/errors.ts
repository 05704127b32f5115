/** Base of every error that is the input's or the device's fault. Messages are one line: expected, found, what to do. */
export class EdgeFormerError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A bundle that does not follow BUNDLE.md: corrupted, foreign, or made by a newer version. */
export class BundleError extends EdgeFormerError {}

/** An input (text, image, argument) that cannot be used. */
export class InputError extends EdgeFormerError {}

/** An engine that is missing, failed, or gave NaN. */
export class EngineError extends EdgeFormerError {}

/** A value as it may be shown in a one-line message: ASCII, quoted where it is text, short. */
export function shorten(value: unknown, limit = 80): string {
  const written = typeof value === "string" ? `'${value}'` : String(JSON.stringify(value));
  const shown = written.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return shown.length > limit ? `${shown.slice(0, limit - 3)}...` : shown;
}
