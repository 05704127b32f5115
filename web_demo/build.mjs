/** `node build.mjs`: the library and the page in dist/. `node build.mjs tests`: the tests, for `node --test`. */

import { cp, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { build } from "esbuild";

const version = async (name) => JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8")).version;
const shared = {
  bundle: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  define: { LITERT_VERSION: JSON.stringify(await version("@litertjs/core")) },
};

if (process.argv[2] === "tests") {
  const entryPoints = (await readdir("tests")).filter((name) => name.endsWith(".test.ts")).map((name) => `tests/${name}`);
  await build({ ...shared, entryPoints, outdir: "dist/tests", platform: "node", external: ["@litertjs/core", "onnxruntime-web"] });
} else {
  await rm("dist", { recursive: true, force: true });
  await mkdir("dist/site/litert", { recursive: true });
  await mkdir("dist/site/onnx");
  // What a page imports: the engines stay imports of their own, loaded when a bundle needs them.
  await build({ ...shared, entryPoints: ["src/index.ts"], outfile: "dist/edgeformer.js", packages: "external" });
  const declarations = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", "dist/types", "--rootDir", "."];
  await promisify(execFile)(process.execPath, ["node_modules/typescript/bin/tsc", ...declarations]);
  await build({
    ...shared,
    entryPoints: ["page/app.ts", "page/worker.ts"],
    outdir: "dist/site",
    splitting: true,
    minify: true,
    conditions: ["onnxruntime-web-use-extern-wasm"],
  });
  for (const name of ["index.html", "style.css", "manifest.webmanifest", "icon.svg"]) await cp(`page/${name}`, `dist/site/${name}`);
  await cp("node_modules/@litertjs/core/wasm", "dist/site/litert", { recursive: true });
  for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
    await cp(`node_modules/onnxruntime-web/dist/${name}`, `dist/site/onnx/${name}`);
  }
}
