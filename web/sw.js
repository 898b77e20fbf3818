// The service worker: it keeps the files of the page, so that it works without a network, and adds the headers to them
// that a host may not send.

importScripts("files.js"); // FILES and HEADERS
const { FILES, HEADERS } = self;

const CACHE = "asterisk";
const keyOf = (name) => new URL(`${name}?${FILES[name].hash}`, self.registration.scope).href;

self.addEventListener("install", (event) => event.waitUntil(fetchFirst()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOld().then(() => self.clients.claim())));
// A page that was loaded past the service worker asks to be served.
self.addEventListener("message", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const name = url.href.split(/[?#]/)[0].slice(self.registration.scope.length) || "index.html";
  if (!url.href.startsWith(self.registration.scope)) return;
  if (name === "files.js") event.respondWith(ownList());
  else if (FILES[name]) event.respondWith(answer(name));
});

// Fetch what a first visit needs and is not here yet; tell the page how far that is.
async function fetchFirst() {
  const cache = await caches.open(CACHE);
  const here = new Set((await cache.keys()).map(({ url }) => url));
  const names = Object.keys(FILES).filter((name) => FILES[name].first && !here.has(keyOf(name)));
  const total = names.reduce((sum, name) => sum + FILES[name].bytes, 0);
  let received = 0;
  for (const name of names) {
    await fetchInto(cache, name, (bytes) => {
      received += bytes;
      tell({ received, total });
    });
  }
}

async function fetchInto(cache, name, onBytes = () => {}) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const counter = new TransformStream({
    transform(chunk, controller) {
      onBytes(chunk.length);
      controller.enqueue(chunk);
    },
  });
  const headers = new Headers(response.headers);
  for (const [header, value] of Object.entries(HEADERS)) headers.set(header, value);
  await cache.put(keyOf(name), new Response(response.body.pipeThrough(counter), { headers }));
}

async function tell(message) {
  const clients = await self.clients.matchAll({ includeUncontrolled: true });
  for (const client of clients) client.postMessage(message);
}

async function answer(name) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(keyOf(name));
  if (kept) return kept;
  await fetchInto(cache, name);
  return cache.match(keyOf(name));
}

// The list that this worker works by, which may be older than the host's.
function ownList() {
  return new Response(`self.FILES = ${JSON.stringify(FILES)};`, {
    headers: { ...HEADERS, "Content-Type": "text/javascript" },
  });
}

async function forgetOld() {
  const cache = await caches.open(CACHE);
  const wanted = new Set(Object.keys(FILES).map(keyOf));
  const keys = await cache.keys();
  await Promise.all(keys.filter((key) => !wanted.has(key.url)).map((key) => cache.delete(key)));
}
