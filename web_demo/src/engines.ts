/** What runs a bundle's programs in the browser: LiteRT.js, or ONNX Runtime Web. Each is loaded when it is first needed. */

import type { Bundle } from "./bundle.ts";
import { EngineError, InputError, shorten } from "./errors.ts";
import { largestNumber, type ProgramSpec } from "./manifest.ts";
import type { Tensor } from "./safetensors.ts";

export interface EngineOptions {
  /** The folder of the engines' WebAssembly files, with a final slash. */
  assets?: string;
  /** What computes: "gpu" where the browser has WebGPU and the engine takes the model, else and by default "cpu". */
  accelerator?: "cpu" | "gpu";
}

/** Runs programs of one bundle. `close` frees the model's memory. */
export interface Engine {
  /** What runs, with its version and accelerator. */
  readonly executedBy: string;
  /** @throws EngineError the model failed, or gave other outputs than the manifest declares. */
  run(program: string, inputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  close(): void;
}

type Execute = (program: ProgramSpec, inputs: Record<string, Tensor>) => Promise<Record<string, Tensor>>;

/**
 * Opens the engine of a bundle's target.
 *
 * @throws EngineError the browser has no engine for the target, or the engine refuses the model.
 */
export async function openEngine(bundle: Bundle, options: EngineOptions = {}): Promise<Engine> {
  const { target } = bundle.manifest;
  const settings = { assets: "./", accelerator: "cpu" as const, ...options };
  try {
    if (target === "litert") return await openLiteRt(bundle, settings);
    if (target === "onnx") return await openOnnx(bundle, settings);
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError(`the ${target} engine refuses ${bundle.manifest.name}: ${shorten(messageOf(error), 200)}`, { cause: error });
  }
  throw new EngineError(`browsers run bundles of the targets litert and onnx, not ${target}: convert it for one of them`);
}

async function openLiteRt(bundle: Bundle, { assets, accelerator }: Required<EngineOptions>): Promise<Engine> {
  const { loadLiteRt, loadAndCompile, Tensor: LiteRtTensor } = await import("@litertjs/core");
  await (liteRt ??= loadLiteRt(new URL("litert/", new URL(assets, location.href)).href));
  const files = new Set(bundle.manifest.programs.map((program) => program.file));
  const models = new Map(
    await Promise.all(
      [...files].map(async (file) => {
        const name = accelerator === "gpu" ? ("webgpu" as const) : ("wasm" as const);
        return [file, await loadAndCompile(bundle.bytes(file), { accelerator: name })] as const;
      }),
    ),
  );
  const execute: Execute = async (program, inputs) => {
    const signature = models.get(program.file)!.signatures[program.entry];
    if (signature === undefined) throw new EngineError(`${program.file} has no signature ${program.entry}: convert it again`);
    const given = Object.entries(inputs).map(
      ([name, { data, shape }]) => [name, new LiteRtTensor(data as Float32Array | Int32Array, shape)] as const,
    );
    const found = await signature.run(Object.fromEntries(given));
    given.forEach(([, tensor]) => tensor.delete());
    const outputs = await Promise.all(
      Object.entries(found).map(async ([name, tensor]) => {
        const data = Float32Array.from((await tensor.data()) as Float32Array);
        const shape = Array.from(tensor.type.layout.dimensions);
        tensor.delete();
        return [name, { shape, data }] as const;
      }),
    );
    return Object.fromEntries(outputs);
  };
  const close = () => models.forEach((model) => model.delete());
  return new CheckedEngine(bundle, `LiteRT.js ${LITERT_VERSION} on ${accelerator}`, execute, close);
}

let liteRt: Promise<unknown> | undefined;

async function openOnnx(bundle: Bundle, { assets, accelerator }: Required<EngineOptions>): Promise<Engine> {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = new URL("onnx/", new URL(assets, location.href)).href;
  ort.env.wasm.numThreads = 1;
  if (accelerator === "gpu") throw new EngineError("the ONNX engine computes on the CPU here: take a litert bundle");
  const folder = (name: string) => name.slice(0, name.lastIndexOf("/") + 1);
  const sessions = new Map<string, Awaited<ReturnType<typeof ort.InferenceSession.create>>>();
  for (const { file } of bundle.manifest.programs) {
    if (sessions.has(file)) continue;
    // Weights that several models share lie beside them.
    const shared = [...bundle.manifest.files.keys()].filter((name) => name !== file && !name.endsWith(".onnx") && folder(name) === folder(file));
    const externalData = shared.map((name) => ({ path: name.slice(folder(file).length), data: bundle.bytes(name) }));
    sessions.set(file, await ort.InferenceSession.create(bundle.bytes(file), { executionProviders: ["wasm"], externalData }));
  }
  const execute: Execute = async (program, inputs) => {
    const given = Object.entries(withoutPadding(inputs, program, isSymbolic(bundle))).map(([name, { data, shape }]) => [
      name,
      new ort.Tensor(data instanceof Float32Array ? "float32" : "int32", data as Float32Array & Int32Array, shape),
    ]);
    const found = await sessions.get(program.file)!.run(Object.fromEntries(given));
    return Object.fromEntries(
      Object.entries(found).map(([name, tensor]) => [name, { shape: [...tensor.dims], data: tensor.data as Float32Array }]),
    );
  };
  const close = () => sessions.forEach((session) => void session.release());
  return new CheckedEngine(bundle, `ONNX Runtime Web ${ort.env.versions.web} on ${accelerator}`, execute, close);
}

/** Texts of a file that several lengths share run at their own length, as long as no output has one. */
function isSymbolic({ manifest }: Bundle): boolean {
  const [first, second] = manifest.programs;
  return manifest.preprocessing.kind === "text" && second !== undefined && first!.file === second.file;
}

const SHORTEST_TEXT = 2;

function withoutPadding(inputs: Record<string, Tensor>, program: ProgramSpec, isSymbolic: boolean): Record<string, Tensor> {
  const mask = inputs["attention_mask"];
  if (!isSymbolic || mask === undefined || program.outputs.some((output) => output.shape.length > 2)) return inputs;
  const length = Math.max(mask.data.findLastIndex((value: number) => value !== 0) + 1, SHORTEST_TEXT);
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { data }]) => [name, { shape: [1, length], data: data.slice(0, length) }]),
  );
}

/** What every engine has: inputs and outputs are those of the manifest, runs take turns, and errors are in our words. */
class CheckedEngine implements Engine {
  private turn: Promise<unknown> = Promise.resolve();
  private isClosed = false;

  constructor(
    private readonly bundle: Bundle,
    readonly executedBy: string,
    private readonly execute: Execute,
    private readonly release: () => void,
  ) {}

  run(program: string, inputs: Record<string, Tensor>): Promise<Record<string, Tensor>> {
    const work = this.turn.then(() => this.runNow(program, inputs));
    this.turn = work.catch(() => undefined);
    return work;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    void this.turn.then(() => this.release());
  }

  private async runNow(name: string, inputs: Record<string, Tensor>): Promise<Record<string, Tensor>> {
    const { programs, preprocessing } = this.bundle.manifest;
    const program = programs.find((candidate) => candidate.name === name);
    if (program === undefined) {
      throw new InputError(`unknown program ${shorten(name)}: expected one of ${programs.map((known) => known.name).join(", ")}`);
    }
    if (this.isClosed) throw new EngineError("the engine is closed");
    const declared = program.inputs.map((input) => input.name);
    if (Object.keys(inputs).toSorted().join() !== declared.toSorted().join()) {
      throw new InputError(`${name}: expected the inputs ${declared.join(", ")}, found ${Object.keys(inputs).join(", ")}`);
    }
    for (const spec of program.inputs) {
      const found = inputs[spec.name]!;
      if (!fits(found, spec)) throw new InputError(`${name}: ${spec.name}: expected ${spec.dtype} ${spec.shape}, found ${found.shape}`);
      if (preprocessing.kind !== "text") continue;
      const most = largestNumber(preprocessing, spec.name);
      const wrong = found.data.find((value: number) => value < 0 || value > most);
      if (wrong !== undefined) throw new InputError(`${name}: ${spec.name}: expected numbers from 0 to ${most}, found ${wrong}`);
    }
    let outputs: Record<string, Tensor>;
    try {
      outputs = await this.execute(program, inputs);
    } catch (error) {
      if (error instanceof EngineError) throw error;
      throw new EngineError(`${this.executedBy} failed to run ${name}: ${shorten(messageOf(error), 200)}`, { cause: error });
    }
    for (const spec of program.outputs) {
      const found = outputs[spec.name];
      if (found === undefined || !fits(found, spec)) {
        throw new EngineError(
          `${name}: the manifest declares the output ${spec.name} as ${spec.dtype} ${spec.shape}, the model gave ` +
            `${found === undefined ? "nothing" : found.shape}: convert the bundle again`,
        );
      }
    }
    return outputs;
  }
}

function fits({ data, shape }: Tensor, spec: { dtype: string; shape: number[] }): boolean {
  const dtype = data instanceof Float32Array ? "float32" : data instanceof Int32Array ? "int32" : "uint8";
  return dtype === spec.dtype && String(shape) === String(spec.shape);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
