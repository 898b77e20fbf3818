// Install the service worker and wait until it serves this page, so that all the page starts from now on has its headers.

// Return whether the page works without a network. `onBytes` gets { received, total } while files arrive.
export async function keepOffline(onBytes) {
  if (!navigator.serviceWorker) return false;
  navigator.serviceWorker.addEventListener("message", (event) => onBytes(event.data));
  try {
    const registration = await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    const first = !registration.active && (registration.installing ?? registration.waiting);
    await Promise.race([navigator.serviceWorker.ready, ...(first ? [failed(first)] : [])]);
    if (!navigator.serviceWorker.controller) {
      const controlled = new Promise((resolve) => {
        navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
      });
      registration.active.postMessage("claim");
      await controlled;
    }
    return true;
  } catch {
    return false; // an old browser, a private window, no space: the page works, with a network
  }
}

function failed(worker) {
  return new Promise((_, reject) => {
    worker.addEventListener("statechange", () => {
      if (worker.state === "redundant") reject(new Error("the service worker was not installed"));
    });
  });
}
