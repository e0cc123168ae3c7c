// Keeps the picture and its layers over a reload. Part of editor.js.
// The browser's database holds them only during the reload.
const IN_TAB = "palette_jax";  // The key of this tab's entry, in its session storage.

async function inDatabase(act) {
  const opening = indexedDB.open("palette_jax", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("pages");
  const database = await new Promise((resolve, reject) => {
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  try {
    const transaction = database.transaction("pages", "readwrite");
    const request = act(transaction.objectStore("pages"));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
    return request.result;
  } finally {
    database.close();
  }
}

async function saveForReload() {
  if (!sent) return;
  const drawn = await Promise.all([mask, hints].map((one) =>
    new Promise((resolve) => one.canvas.toBlob(resolve))));
  const percents = Object.values(sides).map((input) => input.value);
  const key = Date.now() + Math.random();
  await inDatabase((pages) => pages.put({ sent, task, drawn, percents }, key));
  sessionStorage.setItem(IN_TAB, key);
}

async function restoreAfterReload() {
  const key = Number(sessionStorage.getItem(IN_TAB));
  if (!key) return;
  sessionStorage.removeItem(IN_TAB);
  const kept = await inDatabase((pages) => pages.get(key));
  // Also entries of tabs that were closed during a reload.
  const old = IDBKeyRange.upperBound(Date.now() - 60_000);
  await inDatabase((pages) => { pages.delete(old); return pages.delete(key); });
  if (!kept) return;
  Object.values(sides).forEach((input, i) => { input.value = kept.percents[i]; });
  const layers = await Promise.all(kept.drawn.map(async (blob) => {
    const image = await createImageBitmap(blob);
    const one = makeLayer(image.width, image.height);
    one.add({ kind: "draw", image });
    return one;
  }));
  document.querySelector(`#task input[value=${kept.task}]`)?.click();
  const arrived = () => window.paletteResult.show({ state: "stopped",
    text: "The server is back. Press Run to start again." });
  sendWith(kept.sent, { mask: layers[0], hints: layers[1], arrived });
}
