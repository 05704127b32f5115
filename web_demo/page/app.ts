/** The page: a bundle of a list or of the user's own, an answer, the self-test and a measurement. */

import { type AnyPipeline, EdgeFormerError, type EntityAnswer, load, type Pipeline, type SpanAnswer, verify } from "../src/index.ts";

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const [bundles, file, photo] = [byId<HTMLSelectElement>("bundles"), byId<HTMLInputElement>("file"), byId<HTMLInputElement>("photo")];
const [text, image, checks] = [byId<HTMLFormElement>("text"), byId<HTMLFormElement>("image"), byId("checks")];
const progress = byId<HTMLProgressElement>("progress");
const MIB = 1 << 20;
const RUNS = 20;

let opened: AnyPipeline | undefined;
/** Ends the download of the bundle that was chosen before. */
let download = new AbortController();

async function choose(source: string | File): Promise<void> {
  download.abort();
  download = new AbortController();
  const { signal } = download;
  opened?.close();
  opened = undefined;
  for (const part of [text, image, checks]) part.hidden = true;
  clear();
  progress.hidden = false;
  progress.removeAttribute("value");
  say("Opening the bundle");
  try {
    const found = await load(source, { signal, progress: (done, all) => Object.assign(progress, { max: all, value: done }) });
    if (signal.aborted) return found.close();
    opened = found;
    const { manifest, sizeBytes } = found.bundle;
    byId("about").textContent =
      `${manifest.name}: ${manifest.task}, ${manifest.precision}, ${(sizeBytes / MIB).toFixed(1)} MiB, ` +
      `${found.engine.executedBy}. Licence: ${manifest.license ?? "not stated"}.`;
    image.hidden = manifest.preprocessing.kind !== "image";
    text.hidden = manifest.preprocessing.kind !== "text";
    checks.hidden = false;
    say("");
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    if (!signal.aborted) progress.hidden = true;
  }
}

/** Works with the open bundle, with the controls off meanwhile; failures are shown. */
async function use(work: (pipeline: AnyPipeline) => Promise<void>): Promise<void> {
  const pipeline = opened;
  if (pipeline === undefined) return;
  const controls = document.querySelectorAll<HTMLButtonElement | HTMLInputElement>("button, #photo");
  controls.forEach((control) => (control.disabled = true));
  say("Working");
  try {
    await work(pipeline);
    if (pipeline === opened) say("");
  } catch (error) {
    if (pipeline === opened) fail(error);
  } finally {
    controls.forEach((control) => (control.disabled = false));
  }
}

const answer = (raw: unknown) =>
  use(async (pipeline) => {
    const found = await (pipeline as unknown as Pipeline<unknown, Awaited<ReturnType<AnyPipeline["run"]>>>).run(raw);
    if (pipeline !== opened) return;
    if ("labels" in found) {
      show("answer", found.labels.slice(0, 5).map((label, index) => [label, `${(100 * found.scores[index]!).toFixed(1)} %`]));
    } else if ("vector" in found) show("answer", [[`${found.vector.length} numbers`, [...found.vector.slice(0, 4)].map((value) => value.toFixed(3)).join(" ") + " …"]]);
    else if ("score" in found) show("answer", [["score", found.score.toFixed(4)]]);
    else show("answer", placesOf(found));
    const { preprocessMs, runMs } = found.statistics!;
    byId("cost").textContent =
      `${(preprocessMs + runMs).toFixed(1)} ms in ${pipeline.engine.executedBy}` + (found.truncated ? ". The text was too long and was cut." : "");
  });

/** Words of the text with what they are. */
function placesOf(found: SpanAnswer | EntityAnswer): string[][] {
  if ("answers" in found) return found.answers.map(({ text: words, score }) => [words, `${(100 * score).toFixed(1)} %`]);
  return found.entities.map(({ text: words, label, score }) => [words, `${label} ${(100 * score).toFixed(1)} %`]);
}

const selfTest = () =>
  use(async (pipeline) => {
    const { stages, ok, firstDiverging } = await verify(pipeline, (done, all) => say(`Case ${done} of ${all}`));
    show("report", [
      ["Self-test", ok ? "passed" : `diverges at ${firstDiverging}`],
      ...stages.map(({ name, maxAbs, tolerance, reason }) => [
        reason === undefined ? name : `${name}: ${reason}`,
        `${maxAbs?.toExponential(1) ?? "nothing to compare"} of ${tolerance.toExponential(1)}`,
      ]),
    ]);
  });

const measure = () =>
  use(async ({ bundle, engine }) => {
    const rows: string[][] = [];
    for (const { name, inputs } of bundle.manifest.programs) {
      const given = inputs.map(({ name: input, dtype, shape }) => {
        const size = shape.reduce((product, side) => product * side, 1);
        const data = dtype === "int32" ? new Int32Array(size).fill(input === "token_type_ids" ? 0 : 1) : new Float32Array(size);
        return [input, { shape, data }] as const;
      });
      const times: number[] = [];
      for (let run = 0; run < RUNS; run++) {
        const start = performance.now();
        await engine.run(name, Object.fromEntries(given));
        times.push(performance.now() - start);
      }
      times.sort((a, b) => a - b);
      rows.push([name, `${times[RUNS >> 1]!.toFixed(2)} ms, 9 of 10 within ${times[Math.floor(0.9 * RUNS)]!.toFixed(2)}`]);
    }
    show("report", rows);
  });

function show(id: string, rows: string[][]): void {
  byId(id).replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((cell) => Object.assign(document.createElement("td"), { textContent: cell })));
      return row;
    }),
  );
}

function clear(): void {
  for (const id of ["answer", "report", "cost", "about"]) byId(id).replaceChildren();
  byId("shown").hidden = true;
}

function say(words: string): void {
  byId("status").textContent = words;
}

function fail(error: unknown): void {
  say(error instanceof EdgeFormerError ? error.message : `Unexpected failure: ${String(error)}`);
}

bundles.addEventListener("change", () => void choose(bundles.value));
file.addEventListener("change", () => file.files?.[0] && void choose(file.files[0]));
byId("choice").addEventListener("submit", (event) => event.preventDefault());
image.addEventListener("submit", (event) => event.preventDefault());
text.addEventListener("submit", (event) => {
  event.preventDefault();
  const [sentence, pair] = [byId<HTMLInputElement>("sentence").value, byId<HTMLInputElement>("pair").value];
  void answer(pair === "" ? sentence : [sentence, pair]);
});
photo.addEventListener("change", () => {
  const chosen = photo.files?.[0];
  if (chosen === undefined) return;
  const shown = byId<HTMLImageElement>("shown");
  URL.revokeObjectURL(shown.src);
  Object.assign(shown, { src: URL.createObjectURL(chosen), hidden: false });
  void answer(chosen);
});
byId("verify").addEventListener("click", () => void selfTest());
byId("bench").addEventListener("click", () => void measure());

if ("serviceWorker" in navigator) void navigator.serviceWorker.register("worker.js");

/** `bundles/index.json` lists the zips beside it, by name. */
const names = await fetch("bundles/index.json").then((response) => (response.ok ? (response.json() as Promise<string[]>) : []), () => []);
bundles.append(...names.map((name) => new Option(name.replace(/\.zip$/, ""), `bundles/${name}`)));
if (names.length > 0) await choose(bundles.value);
else say("Choose a bundle's zip.");
