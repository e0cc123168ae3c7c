// The result: progress, a comparison, and the files. Its states are dicts of work.py,
// which arrive by `window.paletteResult` and as gradio's `props.value`.
const find = (selector) => element.querySelector(selector);
const compare = find(".compare");
let done = null;        // The last dict with results.
let chosen = 0;         // The index of the shown result.

// Relative, so that the page works below any address.
const address = (path) =>
  "gradio_api/file=" + path.split("/").map(encodeURIComponent).join("/");

// Gradio waits forever for a killed server, and reloads the page when a server is back.
// Here the page reloads only after the picture is saved.
const ask = window.fetch.bind(window);
const isIdentity = (url) => String(url?.url ?? url).endsWith("/app_id");
window.fetch = (url, ...options) => isIdentity(url)
  ? Promise.reject(new Error("result.js asks for it")) : ask(url, ...options);
let serverId = null;    // The server that sent the page.
let gone = false;       // Whether the server does not answer.
async function identity() {
  try {
    const signal = AbortSignal.timeout(5000);
    const answer = await ask("gradio_api/app_id", { cache: "no-store", signal });
    return (await answer.json()).app_id;
  } catch { return null; }
}
async function watchServer() {
  const now = await identity() ?? await identity();
  serverId ??= now;
  if (now === null && !gone) {
    gone = true;
    show({ state: "failed", text: "The server does not answer. This page still has the"
      + " picture and the mask: leave it open, and start the server again." });
  } else if (now !== null && now !== serverId) {
    return window.paletteEditor.reload().catch((error) => show({ state: "failed",
      text: `The server was started again: save your mask, then load this page again. ${error}` }));
  } else if (now !== null && gone) {
    gone = false;
    show({ state: "stopped", text: "The server answers again. Press Run to start again." });
  }
  setTimeout(watchServer, 2000);
}
watchServer();

function show(news) {
  const busy = news.state === "running" || news.state === "waiting";
  // In a small window the result is far below.
  if (busy && !document.body.classList.contains("palette-busy"))
    element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  document.body.classList.toggle("palette-busy", busy);
  find(".text").textContent = news.text;
  find(".text").classList.toggle("wrong", news.state === "failed");
  find(".bar").hidden = !busy;
  find(".bar").classList.toggle("unknown", news.share === undefined);
  find(".bar div").style.width = `${100 * (news.share ?? 1)}%`;
  if (news.preview) {
    find(".preview").src = news.preview;
    find(".preview").onload = (event) =>
      event.target.classList.toggle("coarse", event.target.naturalWidth < 256);
  }
  find(".preview").hidden = !(busy && news.preview);
  if (news.state === "done") {
    done = news;
    choose(0);
    move(50);
  }
  find(".empty").hidden = Boolean(done) || !find(".preview").hidden;
  compare.hidden = !done || !find(".preview").hidden;
  find(".actions").hidden = find(".samples").hidden = find(".notes").hidden = !done || busy;
  if (busy) find(".command").hidden = true;
}

function choose(index) {
  chosen = index;
  const { name, path } = done.results[index];
  // The file may have changed under the same name.
  const fresh = `?${done.time}`;
  find(".after").src = address(path) + fresh;
  find(".before").src = address(done.before) + fresh;
  find(".after").onload = ({ target }) => {
    enlarge(scale);
    for (const image of compare.querySelectorAll("img"))
      image.classList.toggle("coarse", target.naturalWidth < 256);
  };
  find(".deviation").hidden = find(".command").hidden = true;
  find(".doubt").classList.remove("active");
  find(".doubt").hidden = !done.deviation;
  if (done.deviation) find(".deviation").src = done.deviation;
  find(".download").href = address(path);
  find(".download").download = name;
  find(".notes").replaceChildren(...done.notes.map((text) => {
    const note = document.createElement("li");
    note.textContent = text;
    return note;
  }));
  find(".samples").replaceChildren(...(done.results.length < 2 ? [] : done.results).map(
    (result, i) => {
      const button = document.createElement("button"), image = new Image();
      button.type = "button";
      button.title = `Seed ${result.seed}`;
      button.classList.toggle("active", i === index);
      button.onclick = () => choose(i);
      image.src = result.thumbnail;
      image.alt = `Result ${i + 1}`;
      button.append(image);
      return button;
    }));
}

let scale = null;       // Screen pixels for each pixel of the result; null: fit to frame.
function enlarge(factor) {
  const frame = find(".frame"), { naturalWidth, naturalHeight } = find(".after");
  // The centre of the frame, as shares of the picture.
  const x = scale === null ? 0.5 : (frame.scrollLeft + frame.clientWidth / 2
    - compare.offsetLeft) / compare.offsetWidth;
  const y = scale === null ? 0.5 : (frame.scrollTop + frame.clientHeight / 2
    - compare.offsetTop) / compare.offsetHeight;
  scale = factor && Math.min(Math.max(factor, 1 / 16), 16);
  const fine = window.devicePixelRatio || 1;
  frame.classList.toggle("enlarged", scale !== null);
  compare.style.width = scale ? `${naturalWidth * scale / fine}px` : "";
  compare.style.height = scale ? `${naturalHeight * scale / fine}px` : "";
  frame.scrollLeft = compare.offsetLeft + x * compare.offsetWidth - frame.clientWidth / 2;
  frame.scrollTop = compare.offsetTop + y * compare.offsetHeight - frame.clientHeight / 2;
}
const fitted = () => Math.min(compare.clientWidth / find(".after").naturalWidth,
  compare.clientHeight / find(".after").naturalHeight) * (window.devicePixelRatio || 1);
const zoomBy = (factor) => enlarge((scale ?? fitted()) * factor);
find(".fit").onclick = () => enlarge(null);
find(".one").onclick = () => enlarge(1);
find(".closer").onclick = () => zoomBy(1.5);
find(".farther").onclick = () => zoomBy(1 / 1.5);
find(".frame").addEventListener("wheel", (event) => {
  if (compare.hidden || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 200));
}, { passive: false });
find(".doubt").onclick = () => {
  const { hidden } = find(".deviation");
  find(".deviation").hidden = !hidden;
  find(".doubt").classList.toggle("active", hidden);
};

// Also works in browsers without a clipboard for pages without TLS.
find(".copy").onclick = async () => {
  const shown = find(".command");
  shown.textContent = done.results[chosen].command;
  shown.hidden = false;
  getSelection().selectAllChildren(shown);
  try { await navigator.clipboard.writeText(shown.textContent); }
  catch { document.execCommand("copy"); }
};

function move(percent) {
  const at = Math.min(Math.max(percent, 0), 100);
  compare.style.setProperty("--at", `${at}%`);
  compare.setAttribute("aria-valuenow", Math.round(at));
}
for (const name of ["pointerdown", "pointermove"])
  compare.addEventListener(name, (event) => {
    if (name === "pointerdown") compare.setPointerCapture(event.pointerId);
    else if (!event.buttons) return;
    const box = compare.getBoundingClientRect();
    move(100 * (event.clientX - box.left) / box.width);
  });
compare.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -5, ArrowRight: 5 }[event.key];
  if (!step) return;
  event.preventDefault();
  move(Number(compare.getAttribute("aria-valuenow")) + step);
});

find(".again").addEventListener("click", async () => {
  const { name, path } = done.results[chosen];
  const answer = await fetch(address(path));
  window.paletteEditor.goOn(await answer.blob(), name);
});
watch("value", () => { if (props.value) show(props.value); });

window.paletteResult = {
  show,
  // The server has ended the computation, whatever its last state was.
  settle: () => document.body.classList.contains("palette-busy")
    && show({ state: "failed", text: "The server did not answer: try again." }),
};
