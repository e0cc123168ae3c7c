// The editor of the picture, its mask and its edges. Gradio provides `element`, which
// contains editor.html, `props`, and `upload`, which sends a file. `trigger` notifies the
// server, whose answer arrives as `props.value`. The page reads `window.paletteEditor`.
const find = (selector) => element.querySelector(selector);
const root = find(".editor"), stage = find(".stage"), canvas = find("canvas");
const context = canvas.getContext("2d");
const size = find(".size");
const sides = Object.fromEntries(
  [...element.querySelectorAll(".side")].map((input) => [input.dataset.side, input]));

let task = props.task;
let photo = null;       // {name, width, height, image}: `image` may be smaller.
let mask = null, hints = null;  // Layers of makeLayer.
let tool = "brush", stroke = null, pointer = null;
let dragged = null;     // The edge: {side, from, before, layout}.
let zoom = 1, pan = { x: 0, y: 0 };
let asked = 0;          // Number of requests, to recognize answers to older ones.
let sending = null;     // The photo of the last request: {file, name}.
let sent = null;        // The shown photo.
let layers = null;      // The layers of the photo in `sending`: {mask, hints, …}.
const earlier = [];     // The photos that results replaced: {sent, mask, hints}.
let together = [], number = 0;  // The dropped pictures, and the index of the open one.
let reloads = false;    // Whether the page may be left without a question.

const say = (text, wrong = false) => {
  find(".about").textContent = text;
  find(".about").classList.toggle("wrong", wrong);
};
const extended = (side) => Math.min(Math.max(Number(sides[side].value) || 0, 0), 400) / 100;
const share = (side) => task === "uncrop" ? extended(side) : 0;
// The layer that the brush paints on, if the task has one.
const layer = () => task === "inpaint" ? mask
  : task === "colorize" && props.hints ? hints : null;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The position on the canvas of the picture with its extension.
function layout() {
  const left = share("left") * photo.width, top = share("top") * photo.height;
  const width = photo.width * (1 + share("right")) + left;
  const height = photo.height * (1 + share("bottom")) + top;
  if (dragged) {  // The edge follows the pointer, and the picture stays.
    const { scale, x, y, left: oldLeft, top: oldTop } = dragged.layout;
    return { left, top, width, height, scale,
      x: x + (oldLeft - left) * scale, y: y + (oldTop - top) * scale };
  }
  const room = { width: stage.clientWidth, height: stage.clientHeight };
  const margin = task === "uncrop" ? 40 : 0;
  const scale = zoom * Math.min(
    (room.width - 2 * margin) / width, (room.height - 2 * margin) / height, 16);
  const spare = { x: room.width - width * scale, y: room.height - height * scale };
  for (const axis of ["x", "y"]) {
    const most = Math.max(-spare[axis] / 2, 0);
    pan[axis] = clamp(pan[axis], -most, most);
  }
  return { left, top, width, height, scale, x: spare.x / 2 + pan.x, y: spare.y / 2 + pan.y };
}

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; paint(); });
}

function paint() {
  const fine = window.devicePixelRatio || 1;
  canvas.width = Math.round(stage.clientWidth * fine);
  canvas.height = Math.round(stage.clientHeight * fine);
  for (const name of ["brush", "eraser"])
    find(`[data-do=${name}]`).classList.toggle("active", tool === name);
  if (!photo) return;
  const { left, top, width, height, scale, x, y } = layout();
  context.setTransform(fine * scale, 0, 0, fine * scale, fine * x, fine * y);
  context.imageSmoothingEnabled = scale * photo.width / photo.image.width < 2;
  context.fillStyle = "#8884";
  context.fillRect(0, 0, width, height);
  context.drawImage(photo.image, left, top, photo.width, photo.height);
  if (layer()) {
    context.globalAlpha = task === "inpaint" ? 0.6 : 1;
    context.drawImage(layer().canvas, left, top);
    context.globalAlpha = 1;
    if (pointer) {
      for (const [color, wide] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = color;
        context.lineWidth = wide / scale;
        context.beginPath();
        context.arc(pointer.x, pointer.y, radius(), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
  if (task === "uncrop") {
    context.strokeStyle = context.fillStyle = "#4f46e5";
    context.lineWidth = 2 / scale;
    context.strokeRect(0, 0, width, height);
    const long = 44 / scale, wide = 10 / scale;
    for (const [u, v, w, h] of [
      [0, height / 2, wide, long], [width, height / 2, wide, long],
      [width / 2, 0, long, wide], [width / 2, height, long, wide],
    ]) {
      context.beginPath();
      context.roundRect(u - w / 2, v - h / 2, w, h, wide / 2);
      context.fill();
    }
  }
}

// The size is in pixels of a picture whose longer side has 512.
const radius = () =>
  Math.max((size.value / 2) * Math.max(photo.width, photo.height) / 512, 0.5);

const change = (edit) => { if (photo) { layer()?.add(edit); draw(); } };
const actions = {
  open: () => find(".photo-file").click(),
  brush: () => { tool = "brush"; draw(); },
  eraser: () => { tool = "eraser"; draw(); },
  undo: () => { layer()?.undo(); draw(); },
  redo: () => { layer()?.redo(); draw(); },
  clear: () => change({ kind: "clear" }),
  invert: () => change({ kind: "invert" }),
  "load-mask": () => photo ? find(".mask-file").click()
    : say("expected a picture, got none; open the picture first, then its mask", true),
  "save-mask": () => saveDrawing("mask", () => mask.picture()),
  "save-hints": () => saveDrawing("hints", () => hints.colours()),
  previous: () => openNumber(number - 1),
  next: () => openNumber(number + 1),
  "take-back": () => {
    const before = earlier.at(-1);
    sendWith(before.sent, before, earlier.slice(0, -1));
  },
  "zoom-in": () => zoomAt(1.5, stage.clientWidth / 2, stage.clientHeight / 2),
  "zoom-out": () => zoomAt(1 / 1.5, stage.clientWidth / 2, stage.clientHeight / 2),
};

// Zooms around the point (x, y) of the canvas.
function zoomAt(factor, x, y) {
  const now = clamp(zoom * factor, 1, 16), ratio = now / zoom;
  const middle = { x: stage.clientWidth / 2, y: stage.clientHeight / 2 };
  pan.x = (x - middle.x) * (1 - ratio) + pan.x * ratio;
  pan.y = (y - middle.y) * (1 - ratio) + pan.y * ratio;
  zoom = now;
  draw();
}

// Saves under the name that the copied command expects.
function saveDrawing(kind, encoded) {
  if (!photo) return say("expected a picture, got none; open a picture first", true);
  const link = document.createElement("a");
  link.href = encoded();
  link.download = `${photo.name.replace(/\.[^.]*$/, "")}_${kind}.png`;
  link.click();
}

// Opens the first of several pictures.
function openAll(files) {
  together = files;
  if (files.length) openNumber(0);
  else say("expected a picture, got none; open another folder or file", true);
}
function openNumber(wanted) {
  number = clamp(wanted, 0, together.length - 1);
  find(".folder").hidden = together.length < 2;
  find(".place").textContent = `${number + 1} of ${together.length}`;
  sendWith({ file: together[number], name: together[number].name || "pasted.png" }, null);
}
// Sends a photo with its painted layers, and the photos before it.
function sendWith(photo, painted, before = []) {
  sending = photo;
  layers = painted && { ...painted, before };
  return send(photo.file, photo.name, "photo");
}

async function send(file, name, kind) {
  const megabytes = props.max_bytes / 1e6;
  if (file.size > props.max_bytes)
    return say(`${name}: expected at most ${megabytes} MB, got ${Math.ceil(file.size / 1e6)} MB`, true);
  const number = ++asked;
  say(`Sending ${name}…`);
  try {
    // A unique name; the server keeps the true name.
    const { path } = await upload(new File([file], `${Date.now()}${Math.random()}`));
    trigger("upload", { upload: path, name, kind, number });
  } catch (error) {
    say(`${name} could not be sent: ${error.message || error}`, true);
  }
}

async function answered(answer) {
  if (!answer || answer.number !== asked) return;
  if (answer.error) return say(answer.error, true);
  const image = new Image();
  image.src = answer.view;
  await image.decode();
  const notes = answer.notes.map((note) => ` · ${note}`).join("");
  if (answer.kind === "mask") {
    mask.add({ kind: "load", image });
    draw();
    return say(answer.notes.join(" · ") || `${answer.name} is loaded.`);
  }
  photo = { ...answer, image };
  sent = sending;
  // Layers of another size belong to another picture.
  const fits = layers && layers.mask.canvas.width === photo.width
    && layers.mask.canvas.height === photo.height;
  mask = fits ? layers.mask : makeLayer(photo.width, photo.height);
  hints = fits ? layers.hints : makeLayer(photo.width, photo.height);
  earlier.splice(0, Infinity, ...(layers?.before ?? []));
  find("[data-do=take-back]").hidden = !earlier.length;
  zoom = 1;
  root.classList.add("open");
  say(`${photo.name}, ${photo.width} x ${photo.height}${notes}`);
  draw();
  layers?.arrived?.();
}
watch("value", () => answered(props.value));

root.addEventListener("click", (event) => actions[event.target.dataset?.do]?.());
size.addEventListener("input", draw);
Object.values(sides).forEach((input) => input.addEventListener("input", draw));
for (const kind of ["photo", "mask"])
  find(`.${kind}-file`).addEventListener("change", ({ target }) => {
    const files = [...target.files];
    if (files.length) kind === "mask" ? send(files[0], files[0].name, kind) : openAll(files);
    target.value = "";
  });
new ResizeObserver(draw).observe(stage);
window.addEventListener("beforeunload", (event) => {
  if (reloads) return;
  const painted = photo && !(mask.isEmpty() && hints.isEmpty());
  if (painted || document.body.classList.contains("palette-busy")) event.preventDefault();
});

window.paletteEditor = {
  value: () => photo && {
    mask: task === "inpaint" ? mask.picture() : null,
    hints: layer() === hints && !hints.isEmpty() ? hints.colours() : null,
    extend: Object.fromEntries(Object.keys(sides).map((side) => [side, extended(side)])),
  },
  task: (name) => {
    root.classList.remove(...Object.keys(props.sentences));
    root.classList.add(task = name);
    root.classList.toggle("paints", name === "inpaint" || (name === "colorize" && props.hints));
    find(".hint").textContent = props.sentences[name];
    zoom = 1;
    draw();
  },
  openAll,
  // The mask stays if the new picture has the same size.
  goOn: (file, name) => sendWith({ file, name }, { mask, hints },
    [...earlier, { sent, mask, hints }]),
  // A restarted server knows neither the picture nor the page.
  reload: async () => {
    await saveForReload();
    reloads = true;
    location.reload();
  },
};
// A number of results that the user entered stays when the task changes.
document.addEventListener("input", ({ target }) => {
  if (target.closest("#num_samples")) window.paletteEditor.countEntered = true;
});
window.paletteEditor.task(task);
restoreAfterReload();
