import { BundleError, InputError, shorten } from "./errors.ts";
import { CASES, MANIFEST, type Manifest, parseManifest, REFUSED, SIGNATURE, TENSORS } from "./manifest.ts";
import { checkRelease, checkRequired, checkSignature, parseRelease, type Required } from "./signature.ts";
import { decodeText } from "./strict_json.ts";
import { readZip } from "./zip.ts";

const MIB = 1 << 20;
const MAX_MANIFEST_BYTES = 4 * MIB;
const MAX_ZIP_BYTES = 2 ** 32;

export interface OpenOptions extends Required {
  /** Called with the bytes that have arrived and those that are to come, as far as they are known. */
  progress?: (done: number, all: number) => void;
  /** Ends the download. */
  signal?: AbortSignal;
  /** How files are fetched; the page's own `fetch` by default. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

/** A bundle whose every file has the size and hash that its manifest states. */
export class Bundle {
  constructor(
    readonly manifest: Manifest,
    private readonly contents: ReadonlyMap<string, Uint8Array>,
  ) {}

  /** The size of all files that the manifest lists, in bytes. */
  get sizeBytes(): number {
    return [...this.manifest.files.values()].reduce((sum, file) => sum + file.size, 0);
  }

  /** @throws BundleError the manifest does not list it. */
  bytes(name: string): Uint8Array {
    const found = this.contents.get(name);
    if (found === undefined) throw new BundleError(`no file ${shorten(name)} in the bundle ${this.manifest.name}`);
    return found;
  }

  text(name: string): string {
    return decodeText(this.bytes(name), name);
  }
}

/**
 * Opens a bundle and checks all of it.
 *
 * @param source the URL of its folder (with a final slash) or zip, or a zip's content.
 * @throws BundleError it does not follow BUNDLE.md, or is not what is required; the message says where.
 * @throws InputError it cannot be fetched, or signatures cannot be checked in this browser.
 * @example
 *     const bundle = await openBundle("bundles/intents.litert.dynamic-int8.zip");
 */
export async function openBundle(source: string | URL | Blob | Uint8Array, options: OpenOptions = {}): Promise<Bundle> {
  checkRequired(options);
  if (typeof source !== "string" && !(source instanceof URL)) {
    const zip = source instanceof Uint8Array ? source : new Uint8Array(await source.arrayBuffer());
    return open(folderOf(readZip(zip, options.keys !== undefined)), options);
  }
  const url = String(source);
  const download = new Download(options);
  if (!url.endsWith("/")) return open(folderOf(readZip(await download.get(url, MAX_ZIP_BYTES), options.keys !== undefined)), options);
  return open(
    {
      read: (name, most) => download.get(url + name, most),
      names: null,
      expect: (bytes) => download.expect(bytes),
    },
    options,
  );
}

/** Files that nobody has checked yet. */
interface Files {
  read(name: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** All of them; null where nobody can tell, as on a server. */
  names: string[] | null;
  expect(bytes: number): void;
}

function folderOf(members: Map<string, Uint8Array>): Files {
  const names = [...members.keys()];
  return { read: async (name) => members.get(name), names, expect: () => undefined };
}

async function open(files: Files, required: Required): Promise<Bundle> {
  const manifestBytes = await files.read(MANIFEST, MAX_MANIFEST_BYTES);
  if (manifestBytes === undefined) throw new BundleError(`no ${MANIFEST} in it: expected a bundle's folder or zip`);
  const isSigned = files.names?.includes(SIGNATURE) ?? required.keys !== undefined;
  await checkSignature(isSigned ? await files.read(SIGNATURE, MIB) : undefined, manifestBytes, required.keys);
  const manifest = parseManifest(manifestBytes);
  if (files.names !== null) compareNames(manifest, files.names);
  if (manifest.files.has(REFUSED)) {
    throw new BundleError(`the gates of its conversion refused this bundle (${REFUSED}): convert it otherwise`);
  }
  checkSizes(manifest);
  files.expect([...manifest.files.values()].reduce((sum, file) => sum + file.size, 0));
  const contents = new Map<string, Uint8Array>();
  const read = async (name: string) => {
    const entry = manifest.files.get(name)!;
    const bytes = await files.read(name, entry.size);
    if (bytes === undefined) throw new BundleError(`file ${shorten(name)} is missing: the manifest lists it`);
    if (bytes.length !== entry.size) {
      throw new BundleError(`${name}: expected ${entry.size} bytes as in the manifest, found ${bytes.length}: download it again`);
    }
    if ((await sha256(bytes)) !== entry.sha256) {
      throw new BundleError(`${name}: its SHA-256 differs from the manifest's: the file is corrupted, download it again`);
    }
    contents.set(name, bytes);
  };
  // Which release it is comes before large files.
  if (manifest.files.has("release.json")) await read("release.json");
  const release = contents.get("release.json");
  checkRelease(required, manifest.name, release === undefined ? null : parseRelease(release, manifest.name));
  for (const name of manifest.files.keys()) if (!contents.has(name)) await read(name);
  return new Bundle(manifest, contents);
}

function compareNames(manifest: Manifest, names: string[]): void {
  const extra = names.find((name) => name !== MANIFEST && name !== SIGNATURE && !manifest.files.has(name));
  if (extra !== undefined) throw new BundleError(`extra file ${shorten(extra)}: the manifest does not list it`);
  const missing = [...manifest.files.keys()].find((name) => !names.includes(name));
  if (missing !== undefined) throw new BundleError(`file ${shorten(missing)} is missing: the manifest lists it`);
}

/** Refuses a size that a file of its kind cannot have, before anything is read and hashed. */
function checkSizes(manifest: Manifest): void {
  const { preprocessing, programs, target } = manifest;
  const limits = new Map([[CASES, 16 * MIB], [TENSORS, 1024 * MIB], ["report.json", 64 * MIB]]);
  if (preprocessing.kind === "text" && preprocessing.tokenizer !== null) limits.set(preprocessing.tokenizer, 64 * MIB);
  const models = new Set(programs.map((program) => program.file));
  const folder = (name: string) => name.slice(0, name.lastIndexOf("/") + 1);
  const besideModels = new Set(target === "onnx" ? [...models].map(folder) : []);
  for (const [name, { size }] of manifest.files) {
    const isModel = models.has(name) || target === "coreml" || besideModels.has(folder(name));
    const other = name.startsWith("vectors/") ? 128 * MIB : isModel ? 2 ** 31 - 1 : 256 * MIB;
    const limit = limits.get(name) ?? other;
    if (size > limit) throw new BundleError(`${shorten(name)}: expected at most ${limit} bytes, found ${size}`);
  }
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as BufferSource));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Files from a server, none longer than it may be, with the bytes of all of them counted. */
class Download {
  private done = 0;
  private all = 0;

  constructor(private readonly options: OpenOptions) {}

  expect(bytes: number): void {
    this.all = this.done + bytes;
  }

  async get(url: string, maxBytes: number): Promise<Uint8Array> {
    const get = this.options.fetch ?? ((address, init) => fetch(address, init));
    let response: Response;
    try {
      response = await get(url, this.options.signal ? { signal: this.options.signal } : {});
    } catch (error) {
      if (this.options.signal?.aborted) throw error;
      throw new InputError(`${url}: cannot be fetched: check the address and the network`, { cause: error });
    }
    if (!response.ok || response.body === null) throw new InputError(`${url}: the server answers ${response.status}`);
    this.all ||= Number(response.headers.get("content-length") ?? 0);
    const parts: Uint8Array[] = [];
    let size = 0;
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      size += part.value.length;
      if (size > maxBytes) {
        await reader.cancel();
        throw new BundleError(`${url}: expected at most ${maxBytes} bytes, found more`);
      }
      parts.push(part.value);
      this.done += part.value.length;
      this.options.progress?.(this.done, Math.max(this.all, this.done));
    }
    return joined(parts, size);
  }
}

function joined(parts: Uint8Array[], size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let next = 0;
  for (const part of parts) {
    bytes.set(part, next);
    next += part.length;
  }
  return bytes;
}
