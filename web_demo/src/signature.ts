/** Who made a bundle, and which it is (BUNDLE.md, "Signature" and "Release"). */

import { BundleError, InputError, shorten } from "./errors.ts";
import { SIGNATURE } from "./manifest.ts";

const DOMAIN = new TextEncoder().encode("edgeformer-bundle-manifest-1\n");
const [KEY_BYTES, SIGNATURE_BYTES] = [32, 64];
const FIELD = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
/** Points of small order, by their y: under such a key anybody makes signatures that fit. */
const SMALL_ORDER = [
  0n,
  1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
  FIELD - 1n,
];

/** What a bundle must be to be opened. */
export interface Required {
  /** Public keys of 32 bytes, of which one must have signed the bundle. */
  keys?: Uint8Array[];
  /** The name that its manifest must have. */
  name?: string;
  /** The lowest version that its release may have. */
  leastVersion?: number;
}

/** @throws InputError no key, one that is none or under which anybody could sign, or a version that no release has. */
export function checkRequired({ keys, leastVersion }: Required): void {
  if (leastVersion !== undefined && !(Number.isSafeInteger(leastVersion) && leastVersion >= 1)) {
    throw new InputError(`expected a version from 1 to ${Number.MAX_SAFE_INTEGER}, found ${leastVersion}`);
  }
  if (keys?.length === 0) throw new InputError("expected at least one public key, found an empty list");
  for (const key of keys ?? []) {
    if (key.length !== KEY_BYTES) throw new InputError(`expected ${KEY_BYTES} bytes of an Ed25519 public key, found ${key.length}`);
    const problem = pointProblem(key);
    if (problem !== null) throw new InputError(`expected an Ed25519 public key, found ${problem}`);
  }
}

/**
 * Checks who made a bundle before anything in its manifest is believed.
 *
 * @param signature the bytes of manifest.sig; undefined: there is none.
 * @param keys that have passed `checkRequired`; undefined: none is required, and only the form is checked.
 */
export async function checkSignature(
  signature: Uint8Array | undefined,
  manifest: Uint8Array,
  keys: Uint8Array[] | undefined,
): Promise<void> {
  if (signature !== undefined && signature.length !== SIGNATURE_BYTES) {
    throw new BundleError(`${SIGNATURE}: expected ${SIGNATURE_BYTES} bytes, found ${signature.length}: sign it again`);
  }
  if (keys === undefined) return;
  if (signature === undefined) {
    throw new BundleError(`a signature is required, and the bundle has none: expected ${SIGNATURE} in it`);
  }
  const isBeyond = number(signature.subarray(KEY_BYTES)) >= ORDER;
  const problem = pointProblem(signature.subarray(0, KEY_BYTES)) ?? (isBeyond ? "an S beyond the group's order" : null);
  if (problem !== null) throw new BundleError(`${SIGNATURE}: expected an Ed25519 signature, found ${problem}`);
  const signed = new Uint8Array([...DOMAIN, ...manifest]);
  for (const key of keys) {
    try {
      const opened = await crypto.subtle.importKey("raw", new Uint8Array(key), "Ed25519", false, ["verify"]);
      if (await crypto.subtle.verify("Ed25519", opened, new Uint8Array(signature), signed)) return;
    } catch (error) {
      if (error instanceof DOMException && error.name === "NotSupportedError") {
        throw new InputError("this browser cannot check Ed25519 signatures: use a newer one", { cause: error });
      }
      // Bytes that are no point of the curve: nobody has signed with them.
    }
  }
  const named = keys.length === 1 ? "the required key" : `one of the ${keys.length} required keys`;
  throw new BundleError(
    `${SIGNATURE}: not a signature of this manifest by ${named}: the bundle was changed after it was signed, or signed ` +
      "with another key",
  );
}

const RELEASE = /^\{\n  "name": "([^"]*)",\n  "version": ([1-9][0-9]{0,15})\n\}\n$/;

/** The version in a release.json, whose every byte is prescribed. */
export function parseRelease(bytes: Uint8Array, name: string): number {
  const found = RELEASE.exec(new TextDecoder("latin1").decode(bytes));
  const version = Number(found?.[2]);
  if (found !== null && found[1] === name && version <= Number.MAX_SAFE_INTEGER) return version;
  throw new BundleError(`release.json: expected the canonical text of the name ${shorten(name)} and a version`);
}

/** Refuses another bundle than the wanted one, or an older one. */
export function checkRelease(required: Required, name: string, version: number | null): void {
  const isOlder = required.leastVersion !== undefined && (version ?? 0) < required.leastVersion;
  if ((required.name === undefined || required.name === name) && !isOlder) return;
  const wanted = [required.name, required.leastVersion && `version ${required.leastVersion} or later`].filter(Boolean);
  const found = version === null ? "no release.json" : `version ${version}`;
  throw new BundleError(`expected the bundle ${wanted.join(", ")}, found ${name}, ${found}: get the right one`);
}

/** What is wrong with the 32 bytes of a point; null where nothing is. Implementations differ in what they take. */
function pointProblem(point: Uint8Array): string | null {
  const y = BigInt.asUintN(255, number(point));
  if (y >= FIELD) return "a point that is not written as RFC 8032 says";
  return SMALL_ORDER.includes(y) ? "a point of small order, for which anybody can sign" : null;
}

/** A number whose lowest byte comes first. */
function number(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
