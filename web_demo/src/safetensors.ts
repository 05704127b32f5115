import { Fields } from "./fields.ts";
import { BundleError } from "./errors.ts";
import { parseJson } from "./strict_json.ts";

/** A dense, row-major array. */
export interface Tensor {
  shape: number[];
  data: Float32Array | Int32Array | Uint8Array;
}

const MAX_HEADER_BYTES = 16 << 20;
const ARRAYS = { F32: Float32Array, I32: Int32Array, U8: Uint8Array } as const;

/**
 * The tensors of a safetensors file by name: float32, int32 and uint8, which is what bundles hold.
 *
 * @throws BundleError it does not follow the format, or holds other types.
 */
export function readSafetensors(file: Uint8Array, where: string): Map<string, Tensor> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = file.length < 8 ? -1 : Number(view.getBigUint64(0, true));
  if (length < 2 || length > Math.min(MAX_HEADER_BYTES, file.length - 8)) {
    throw new BundleError(`${where}: not a safetensors file: its header does not fit`);
  }
  const values = file.subarray(8 + length);
  let used = 0;
  const found = Fields.read(parseJson(file.subarray(8, 8 + length), where, MAX_HEADER_BYTES), where, (fields) => {
    if (fields.has("__metadata__")) fields.skip("__metadata__");
    const names = fields.keys.filter((name) => name !== "__metadata__");
    return new Map(names.map((name) => [name, fields.object(name, readTensor)]));
  });
  function readTensor(fields: Fields): Tensor {
    const array = ARRAYS[fields.choice("dtype", ["F32", "I32", "U8"])];
    const shape = fields.ints("shape", [0, 8], [0, 2 ** 31 - 1]);
    const [start, end] = fields.ints("data_offsets", [2, 2], [0, Number.MAX_SAFE_INTEGER]) as [number, number];
    const size = shape.reduce((product, side) => product * side, 1);
    if (end - start !== size * array.BYTES_PER_ELEMENT || end > values.length) {
      fields.fail("data_offsets", `they do not fit the shape ${shape.join(", ")}, or leave the file`);
    }
    used += end - start;
    return { shape, data: new array(values.slice(start, end).buffer) };
  }
  if (used !== values.length) throw new BundleError(`${where}: its tensors do not fill the file`);
  return found;
}
