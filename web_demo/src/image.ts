/** Images into a model's input as timm's evaluation transform does: resize, crop the center, scale to 0..1, normalise. */

import { InputError } from "./errors.ts";
import type { ImagePreprocessing } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";

/** Of a source image, and of it resized: above the 108 million of today's phones. */
const MAX_PIXELS = 128_000_000;
/** Fraction bits of a weight: what is left of 32 bits for a sum of 8-bit values, a sign and an overshoot. */
const FRACTION_BITS = 22;

/** Upright, opaque pixels as a person sees them: `channels` bytes of each pixel, of which the first are red, green, blue. */
export interface Pixels {
  width: number;
  height: number;
  channels: 3 | 4;
  data: Uint8Array | Uint8ClampedArray;
}

/** What a browser can decode or draw. */
export type RawImage = Blob | ImageBitmapSource | Pixels;

/**
 * The pixels of a file or of what can be drawn: upright, over white where it is transparent, colour profiles not applied.
 *
 * @throws InputError not an image that this browser decodes, or too large.
 */
export async function decodeImage(raw: RawImage): Promise<Pixels> {
  if ("channels" in raw) return raw;
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(raw as ImageBitmapSource, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    throw new InputError("expected an image that the browser can decode, such as JPEG or PNG: choose another one", { cause: error });
  }
  const { width, height } = bitmap;
  checkPixels(width, height, "the image");
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  // Over white in 8-bit values, as the reference lays it.
  for (let at = 3; at < data.length; at += 4) {
    const alpha = data[at]!;
    if (alpha === 255) continue;
    for (let channel = at - 3; channel < at; channel++) {
      const sum = data[channel]! * alpha + 255 * (255 - alpha) + 128;
      data[channel] = (sum + (sum >> 8)) >> 8;
    }
  }
  return { width, height, channels: 4, data };
}

/** Turns images into a model's input. Resizing is Pillow's `Image.resize` bit for bit. */
export class ImageEncoder {
  private readonly table: Float32Array[];

  constructor(private readonly spec: ImagePreprocessing) {
    this.table = normalisationTable(spec);
  }

  /** The model's input (1, 3, height, width), normalised. */
  encode(image: Pixels): Tensor {
    return this.normalised(this.levels(image));
  }

  /** 8-bit values (3, height, width) to the model's input. */
  normalised(levels: Uint8Array): Tensor {
    const { height, width } = this.spec;
    const data = Float32Array.from(levels, (level, index) => this.table[Math.floor(index / (height * width))]![level]!);
    return { shape: [1, 3, height, width], data };
  }

  /** The 8-bit values before the last step, channel by channel: 3 * height * width. */
  levels(image: Pixels): Uint8Array {
    const { spec } = this;
    const [width, height] = this.resizedSize(image);
    checkPixels(width, height, `an image of ${image.width} x ${image.height} pixels, resized for this model,`);
    // Only what the crop keeps is computed: the middle columns, and the rows that the middle rows are made of.
    const columns = weights(image.width, width, this.before(width - spec.width), spec.width, spec.interpolation);
    const rows = weights(image.height, height, this.before(height - spec.height), spec.height, spec.interpolation);
    const first = Math.min(...rows.map((row) => row.first));
    const end = Math.max(...rows.map((row) => row.first + row.values.length));
    const wide = new Uint8Array((end - first) * spec.width * 3);
    for (let y = first; y < end; y++) {
      for (let x = 0; x < spec.width; x++) {
        for (let channel = 0; channel < 3; channel++) {
          const at = image.channels * (y * image.width + columns[x]!.first) + channel;
          wide[3 * ((y - first) * spec.width + x) + channel] = sum(columns[x]!.values, image.data, at, image.channels);
        }
      }
    }
    const result = new Uint8Array(3 * spec.height * spec.width);
    for (let y = 0; y < spec.height; y++) {
      for (let x = 0; x < spec.width; x++) {
        for (let channel = 0; channel < 3; channel++) {
          const at = 3 * ((rows[y]!.first - first) * spec.width + x) + channel;
          result[(channel * spec.height + y) * spec.width + x] = sum(rows[y]!.values, wide, at, 3 * spec.width);
        }
      }
    }
    return result;
  }

  /** Of the pixels that are cropped, those at the left or the top. */
  private before(cropped: number): number {
    return this.spec.crop === "center-floor" ? Math.floor(cropped / 2) : halfToEven(cropped);
  }

  private resizedSize({ width, height }: Pixels): [number, number] {
    const side = this.spec.resizeShortSide;
    if (this.spec.crop === "squash") return [side, side];
    return width <= height ? [side, Math.floor((side * height) / width)] : [Math.floor((side * width) / height), side];
  }
}

/** What each 8-bit value of each channel becomes: an image has no other values. Float32 throughout. */
export function normalisationTable(spec: ImagePreprocessing): Float32Array[] {
  const f = Math.fround;
  return spec.mean.map((mean, channel) =>
    Float32Array.from({ length: 256 }, (_, level) => f(f(level / 255) - f(mean)) / f(spec.std[channel]!)),
  );
}

/** The weights, in fixed point, of the input pixels from `first` on that make one output pixel. */
interface Weights {
  first: number;
  values: Int32Array;
}

/**
 * The weights of `count` output pixels from pixel `start` on, where `from` pixels become `to` (BUNDLE.md, step 4).
 *
 * An image that has its size already is left as it is: then each pixel has itself.
 */
function weights(from: number, to: number, start: number, count: number, filter: ImagePreprocessing["interpolation"]): Weights[] {
  const one = 1 << FRACTION_BITS;
  if (from === to) return Array.from({ length: count }, (_, index) => ({ first: start + index, values: Int32Array.of(one) }));
  const scale = from / to;
  const widened = Math.max(scale, 1);
  const support = (filter === "bicubic" ? 2 : 1) * widened;
  return Array.from({ length: count }, (_, index) => {
    const center = (start + index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), from);
    const values = Array.from({ length: end - first }, (_, at) => weight((at + first - center + 0.5) * (1 / widened), filter));
    const total = values.reduce((sum, value) => sum + value, 0);
    // Rounded, halves away from zero.
    return { first, values: Int32Array.from(values, (value) => Math.trunc((value / total) * one + (value < 0 ? -0.5 : 0.5))) };
  });
}

function weight(distance: number, filter: ImagePreprocessing["interpolation"]): number {
  const x = Math.abs(distance);
  if (filter === "bilinear") return Math.max(0, 1 - x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/** The weighted sum of bytes at `at`, `at + stride`, ..., rounded and clipped to 0..255. */
function sum(values: Int32Array, data: Uint8Array | Uint8ClampedArray, at: number, stride: number): number {
  let total = 1 << (FRACTION_BITS - 1);
  for (let index = 0; index < values.length; index++) total += values[index]! * data[at + index * stride]!;
  return Math.min(Math.max(total >> FRACTION_BITS, 0), 255);
}

/** Half of a number, halves to the even integer, as the reference's crop rounds. */
function halfToEven(number: number): number {
  return number % 2 === 0 ? number / 2 : 2 * Math.round(number / 4);
}

function checkPixels(width: number, height: number, what: string): void {
  if (width < 1 || height < 1) throw new InputError(`${what} is empty: ${width} x ${height} pixels`);
  if (width * height > MAX_PIXELS) {
    throw new InputError(`${what} has ${width} x ${height} pixels, above the limit of 128 million: resize it first`);
  }
}
