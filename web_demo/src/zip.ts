/** The stored zip of a bundle, in memory (BUNDLE.md, "Zip"): every byte of it is accounted for. */

import { BundleError, shorten } from "./errors.ts";
import { checkDistinct, checkName } from "./names.ts";

const [LOCAL, ENTRY, END] = [0x04034b50, 0x02014b50, 0x06054b50];
const [LOCAL_BYTES, ENTRY_BYTES, END_BYTES] = [30, 46, 22];
const [ENCRYPTED, DESCRIPTOR] = [0x2041, 8];
const MAX_FILES = 10_002;

interface Member {
  name: string;
  start: number;
  data: Uint8Array;
  crc: number;
}

/**
 * The members by name.
 *
 * @param isCanonical also refuse whatever a writer must not write: what a signature asks for.
 * @throws BundleError not a stored zip, or one that holds anything else.
 */
export function readZip(zip: Uint8Array, isCanonical: boolean): Map<string, Uint8Array> {
  const members = readDirectory(zip);
  if (isCanonical) checkCanonical(zip, members);
  for (const member of members) {
    if (crc32(member.data) !== member.crc) corrupted(`${shorten(member.name)} has another CRC`);
  }
  return new Map(members.map(({ name, data }) => [name, data]));
}

function readDirectory(zip: Uint8Array): Member[] {
  const view = new DataView(zip.buffer, zip.byteOffset, zip.byteLength);
  const at = zip.length - END_BYTES;
  if (at < 0 || view.getUint32(at, true) !== END || view.getUint16(at + 20, true) !== 0) {
    corrupted("its end record is missing");
  }
  const count = view.getUint16(at + 10, true);
  const [size, offset] = [view.getUint32(at + 12, true), view.getUint32(at + 16, true)];
  if (view.getUint32(at + 4, true) !== 0 || view.getUint16(at + 8, true) !== count) corrupted("expected a zip in one piece");
  if (count > MAX_FILES) corrupted("expected at most 10000 files");
  if (offset + size !== at) corrupted("its directory does not end at its end record");
  const members: Member[] = [];
  let next = offset;
  for (let index = 0; index < count; index++) {
    if (next + ENTRY_BYTES > at || view.getUint32(next, true) !== ENTRY) corrupted("its directory");
    const end = next + ENTRY_BYTES + view.getUint16(next + 28, true);
    if (end > at) corrupted("its directory is cut off");
    members.push(readMember(zip, view, next, end, offset));
    next = end;
  }
  if (next !== at) corrupted("its directory holds more than it states");
  checkDistinct(members.map((member) => member.name));
  let used = 0;
  for (const { name, start, data } of members.toSorted((a, b) => a.start - b.start)) {
    if (start !== used) hidden(`bytes before ${shorten(name)}`);
    used = start + LOCAL_BYTES + name.length + data.length;
  }
  if (used !== offset) hidden("bytes before its directory");
  return members;
}

function readMember(zip: Uint8Array, view: DataView, at: number, end: number, directory: number): Member {
  const name = latin1(zip.subarray(at + ENTRY_BYTES, end));
  const shown = shorten(name);
  if (name.endsWith("/")) throw new BundleError(`${shown}: a zip's folder entry: expected files only`);
  checkName(name);
  const type = view.getUint32(at + 38, true) >>> 28;
  if (type !== 0 && type !== 8) throw new BundleError(`${shown} is a link or device: a bundle holds plain files only`);
  const flags = view.getUint16(at + 8, true);
  if (flags & ENCRYPTED) throw new BundleError(`${shown} is encrypted: expected a stored zip`);
  if (flags & DESCRIPTOR) hidden(`a data descriptor of ${shown}`);
  const size = view.getUint32(at + 24, true);
  if (view.getUint16(at + 10, true) !== 0 || view.getUint32(at + 20, true) !== size) {
    throw new BundleError(`${shown} is compressed: expected a stored zip (pack with edgeformer pack)`);
  }
  // Extra fields, of which zip64's alone is allowed, and comments.
  if (view.getUint32(at + 30, true) !== 0) hidden(`an extra field or comment of ${shown}`);
  const start = view.getUint32(at + 42, true);
  const data = start + LOCAL_BYTES + name.length;
  if (data + size > directory) corrupted("it points outside of itself");
  // The local header says what the directory's entry says, from the version to the name, and has no extra field.
  const isSame = (from: number, to: number, length: number) =>
    zip.subarray(from, from + length).every((byte, index) => byte === zip[to + index]);
  const header = view.getUint32(start, true) === LOCAL && isSame(start + 4, at + 6, 24) && view.getUint16(start + 28, true) === 0;
  if (!header || !isSame(start + LOCAL_BYTES, at + ENTRY_BYTES, name.length)) hidden(`another header of ${shown}`);
  return { name, start, data: zip.subarray(data, data + size), crc: view.getUint32(at + 16, true) };
}

/** Compares every header with what BUNDLE.md asks of writers: sorted, one date, one permission, nothing between. */
function checkCanonical(zip: Uint8Array, members: Member[]): void {
  const sorted = members.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, data, crc } of sorted) {
    const name8 = Uint8Array.from(name, (unit) => unit.charCodeAt(0));
    const facts = [u16(20), u16(0), u16(0), u16(0), u16(33), u32(crc), u32(data.length), u32(data.length), u16(name.length)];
    parts.push(u32(LOCAL), ...facts, u16(0), name8, data);
    directory.push(
      ...[u32(ENTRY), u16(20 | (3 << 8)), ...facts, u16(0), u16(0), u16(0), u16(0), u32((0x81a4 << 16) >>> 0), u32(offset)],
      name8,
    );
    offset += LOCAL_BYTES + name.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = [u32(END), u32(0), u16(members.length), u16(members.length), u32(size), u32(offset), u16(0)];
  let next = 0;
  for (const part of [...parts, ...directory, ...end]) {
    if (!part.every((byte, index) => byte === zip[next + index])) {
      throw new BundleError("the zip holds other bytes than its signed files give: pack it again");
    }
    next += part.length;
  }
}

const u16 = (value: number) => Uint8Array.of(value, value >> 8);
const u32 = (value: number) => Uint8Array.of(value, value >> 8, value >> 16, value >> 24);
const latin1 = (bytes: Uint8Array) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) value = (value >>> 8) ^ CRC[(value ^ byte) & 255]!;
  return (value ^ 0xffffffff) >>> 0;
}

function hidden(what: string): never {
  corrupted(`it holds ${what}, which its directory does not list (pack with edgeformer pack)`);
}

function corrupted(how: string): never {
  throw new BundleError(`corrupted or truncated zip: ${how}`);
}
