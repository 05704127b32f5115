/** The service worker: what the page has fetched once, bundles included, is there without a network. */

const worker = self as unknown as ServiceWorkerGlobalScope;
const CACHE = "edgeformer-1";
/** What the page starts with. Engines and bundles follow when they are first used. */
const SHELL = ["./", "app.js", "style.css", "icon.svg", "manifest.webmanifest"];

worker.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)));
  void worker.skipWaiting();
});

worker.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))));
  event.waitUntil(Promise.all([old, worker.clients.claim()]));
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && new URL(request.url).origin === location.origin) event.respondWith(answer(request));
});

/** The network's answer, which is kept; the kept one where there is no network. */
async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreVary: true });
    if (kept !== undefined) return kept;
    throw error;
  }
}
