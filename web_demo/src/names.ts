import { BundleError, shorten } from "./errors.ts";

const MAX_LENGTH = 255;
const MAX_PARTS = 16;
const PART = /^[A-Za-z0-9_@+.-]+$/;
const WINDOWS_DEVICE = /^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$/i;

/** Refuses a name that could leave the bundle or that some file system cannot store. */
export function checkName(name: string): void {
  const shown = shorten(name);
  const parts = name.split("/");
  if (name.startsWith("/") || name.includes("\\") || /^[A-Za-z]:/.test(name) || parts.includes("..")) {
    throw new BundleError(`file name ${shown} points outside the bundle: expected a relative name like 'vectors/a.json'`);
  }
  if (name.length > MAX_LENGTH || parts.length > MAX_PARTS) {
    throw new BundleError(
      `file name ${shown} is too long: at most ${MAX_LENGTH} characters in ${MAX_PARTS} parts are allowed`,
    );
  }
  if (!parts.every((part) => PART.test(part) && !part.endsWith(".") && !WINDOWS_DEVICE.test(part))) {
    throw new BundleError(
      `file name ${shown} is not portable: expected parts of A-Z a-z 0-9 _ @ + . - that do not end with a dot`,
    );
  }
}

/** Refuses names that are the same on a case-insensitive file system, and files that are also folders. */
export function checkDistinct(names: string[]): void {
  const files = new Map<string, string>();
  const folders = new Map<string, string>();
  for (const name of names) {
    const other = files.get(name.toLowerCase());
    if (other !== undefined) {
      throw new BundleError(`file names ${shorten(other)} and ${shorten(name)} are the same on some file systems`);
    }
    files.set(name.toLowerCase(), name);
    for (let end = name.indexOf("/"); end >= 0; end = name.indexOf("/", end + 1)) {
      const folder = name.slice(0, end);
      const first = folders.get(folder.toLowerCase()) ?? folder;
      if (first !== folder) {
        throw new BundleError(`folders ${shorten(first)} and ${shorten(folder)} are the same on some file systems`);
      }
      folders.set(folder.toLowerCase(), folder);
    }
  }
  for (const [key, name] of files) {
    if (folders.has(key)) throw new BundleError(`${shorten(name)} is both a file and a folder`);
  }
}
