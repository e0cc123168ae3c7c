// The picture with its mask and its extended edges. Gradio gives `element`, the node that
// holds editor.html, and `upload`, which sends a file. The page reads what was drawn by
// `window.paletteEditor.value()`.
const find = (selector) => element.querySelector(selector);
const root = find(".editor"), stage = find(".stage"), canvas = find("canvas");
const context = canvas.getContext("2d");
const size = find(".size"), about = find(".about");
const sides = Object.fromEntries(
  [...element.querySelectorAll(".side")].map((input) => [input.dataset.side, input]));

let photo = null;       // {path, name, bitmap}
let edits = [];         // What was done to the mask, in order; undo takes the last away.
let undone = [];
let tool = "brush", stroke = null, dragged = null, pointer = null;
const mask = document.createElement("canvas");  // Opaque where it is painted anew.
const maskContext = mask.getContext("2d", { willReadFrequently: true });

const extended = (side) => Math.min(Math.max(Number(sides[side].value) || 0, 0), 400) / 100;
const share = (side) => root.classList.contains("uncrop") ? extended(side) : 0;

function layout() {
  const { width, height } = photo.bitmap;
  const left = share("left") * width, top = share("top") * height;
  const whole = {
    width: width * (1 + share("left") + share("right")),
    height: height * (1 + share("top") + share("bottom")),
  };
  const room = Math.max(stage.clientWidth - 4, 200);
  const margin = root.classList.contains("uncrop") ? 24 : 0;
  const scale = Math.min((room - 2 * margin) / whole.width, 520 / whole.height, 12);
  return { left, top, whole, scale, margin };
}

function draw() {
  if (!photo) return;
  const { left, top, whole, scale, margin } = layout();
  canvas.width = Math.round(whole.width * scale + 2 * margin);
  canvas.height = Math.round(whole.height * scale + 2 * margin);
  context.save();
  context.translate(margin, margin);
  context.scale(scale, scale);
  context.imageSmoothingEnabled = scale < 2;
  context.fillStyle = "#8886";
  context.fillRect(0, 0, whole.width, whole.height);
  context.drawImage(photo.bitmap, left, top);
  if (root.classList.contains("inpaint")) {
    context.globalAlpha = 0.6;
    context.drawImage(mask, left, top);
    context.globalAlpha = 1;
    if (pointer) {
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5 / scale;
      context.beginPath();
      context.arc(pointer.x, pointer.y, radius(), 0, 2 * Math.PI);
      context.stroke();
    }
  }
  if (root.classList.contains("uncrop")) {
    context.strokeStyle = "#f97316";
    context.lineWidth = 3 / scale;
    context.strokeRect(0, 0, whole.width, whole.height);
  }
  context.restore();
  for (const [name, active] of [["brush", tool === "brush"], ["eraser", tool === "eraser"]])
    find(`[data-do=${name}]`).classList.toggle("active", active);
}

// The size is in pixels of a picture whose longer side has 512.
function radius() {
  const { width, height } = photo.bitmap;
  return Math.max((size.value / 2) * Math.max(width, height) / 512, 0.5);
}

function apply(edit) {
  const { width, height } = mask;
  maskContext.globalCompositeOperation = "source-over";
  maskContext.fillStyle = maskContext.strokeStyle = "#f0f";
  if (edit.kind === "clear") maskContext.clearRect(0, 0, width, height);
  if (edit.kind === "invert") {
    maskContext.globalCompositeOperation = "xor";
    maskContext.fillRect(0, 0, width, height);
  }
  if (edit.kind === "load") {
    maskContext.clearRect(0, 0, width, height);
    maskContext.drawImage(edit.image, 0, 0, width, height);
  }
  if (edit.kind === "stroke") {
    if (edit.erase) maskContext.globalCompositeOperation = "destination-out";
    maskContext.lineCap = maskContext.lineJoin = "round";
    maskContext.lineWidth = 2 * edit.radius;
    maskContext.beginPath();
    maskContext.moveTo(edit.points[0].x, edit.points[0].y);
    for (const point of edit.points) maskContext.lineTo(point.x, point.y);
    maskContext.stroke();
  }
}

function replay() {
  maskContext.globalCompositeOperation = "source-over";
  maskContext.clearRect(0, 0, mask.width, mask.height);
  edits.forEach(apply);
  draw();
}

function edit(change) {
  edits.push(change);
  undone = [];
  replay();
}

const actions = {
  open: () => find(".photo-file").click(),
  brush: () => { tool = "brush"; draw(); },
  eraser: () => { tool = "eraser"; draw(); },
  undo: () => { if (edits.length) { undone.push(edits.pop()); replay(); } },
  redo: () => { if (undone.length) { edits.push(undone.pop()); replay(); } },
  clear: () => edit({ kind: "clear" }),
  invert: () => edit({ kind: "invert" }),
  "load-mask": () => find(".mask-file").click(),
  "save-mask": () => {
    if (!photo) return;
    const link = document.createElement("a");
    link.href = maskPicture();
    link.download = photo.name.replace(/\.[^.]*$/, "") + "_mask.png";
    link.click();
  },
};

// White is painted anew, black is kept, as everywhere else.
function maskPicture() {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [mask.width, mask.height];
  const drawn = maskContext.getImageData(0, 0, mask.width, mask.height);
  for (let i = 0; i < drawn.data.length; i += 4)
    drawn.data.fill(drawn.data[i + 3] >= 128 ? 255 : 0, i, i + 3).fill(255, i + 3, i + 4);
  picture.getContext("2d").putImageData(drawn, 0, 0);
  return picture.toDataURL("image/png");
}

async function loadMask(file) {
  if (!photo) { about.textContent = "Open the picture first, then its mask."; return; }
  const bitmap = await createImageBitmap(file);
  const image = document.createElement("canvas");
  [image.width, image.height] = [bitmap.width, bitmap.height];
  const target = image.getContext("2d", { willReadFrequently: true });
  target.drawImage(bitmap, 0, 0);
  const pixels = target.getImageData(0, 0, image.width, image.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b, a] = pixels.data.slice(i, i + 4);
    const light = (0.299 * r + 0.587 * g + 0.114 * b) * a / 255;
    pixels.data.set([255, 0, 255, light >= 128 ? 255 : 0], i);
  }
  target.putImageData(pixels, 0, 0);
  edit({ kind: "load", image });
}

async function loadPhoto(file, name) {
  about.textContent = "Sending the picture…";
  try {
    const { path } = await upload(new File([file], name, { type: file.type }));
    // A browser shows fewer kinds of files than the server reads.
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    photo = { path, name, bitmap };
  } catch (error) {
    about.textContent = `This file cannot be shown as a picture: ${name}`;
    return;
  }
  [mask.width, mask.height] = [photo.bitmap.width, photo.bitmap.height];
  edits = [];
  undone = [];
  find(".hint").hidden = true;
  about.textContent = `${name}, ${photo.bitmap.width} × ${photo.bitmap.height}`;
  draw();
}

function at(event) {
  const box = canvas.getBoundingClientRect();
  const { left, top, scale, margin } = layout();
  const zoom = canvas.width / box.width;
  return {
    x: ((event.clientX - box.left) * zoom - margin) / scale,
    y: ((event.clientY - box.top) * zoom - margin) / scale,
    onPhoto() { return { x: this.x - left, y: this.y - top }; },
  };
}

function edgeNear(point) {
  const { whole, scale } = layout();
  const distances = {
    left: Math.abs(point.x), right: Math.abs(point.x - whole.width),
    top: Math.abs(point.y), bottom: Math.abs(point.y - whole.height),
  };
  const [side, distance] = Object.entries(distances).sort((a, b) => a[1] - b[1])[0];
  return distance * scale < 20 ? side : null;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!photo) return;
  const point = at(event);
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  stage.focus();
  if (root.classList.contains("uncrop")) {
    const side = edgeNear(point);
    if (side) dragged = { side, from: event, before: share(side), scale: layout().scale };
  } else if (root.classList.contains("inpaint")) {
    const erase = tool === "eraser" || event.button === 2;
    stroke = { kind: "stroke", erase, radius: radius(), points: [point.onPhoto()] };
    apply(stroke);
    draw();
  }
});
canvas.addEventListener("pointermove", (event) => {
  if (!photo) return;
  pointer = at(event);
  if (dragged) {
    const across = dragged.side === "left" || dragged.side === "right";
    const sign = dragged.side === "left" || dragged.side === "top" ? -1 : 1;
    const moved = across ? event.clientX - dragged.from.clientX
      : event.clientY - dragged.from.clientY;
    const length = across ? photo.bitmap.width : photo.bitmap.height;
    const now = dragged.before + sign * moved / dragged.scale / length;
    sides[dragged.side].value = Math.round(100 * Math.min(Math.max(now, 0), 4));
  }
  if (stroke) {
    stroke.points.push(pointer.onPhoto());
    apply(stroke);
  }
  draw();
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => {
    dragged = null;
    if (!stroke) return;
    edit(stroke);
    stroke = null;
  });
canvas.addEventListener("pointerleave", () => { pointer = null; draw(); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

root.addEventListener("click", (event) => {
  const action = event.target.dataset && event.target.dataset.do;
  if (action) actions[action]();
});
size.addEventListener("input", draw);
Object.values(sides).forEach((input) => input.addEventListener("input", draw));
find(".photo-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) loadPhoto(file, file.name);
  event.target.value = "";
});
find(".mask-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) loadMask(file).catch(() => { about.textContent = "This mask is no picture."; });
  event.target.value = "";
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  stage.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length)
      loadPhoto(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
  });
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (file) loadPhoto(file, file.name || "pasted.png");
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("#cancel")?.click();
  if (event.target.matches("input[type=text], input[type=number], textarea")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    actions[event.shiftKey ? "redo" : "undo"]();
  } else if (key === "[" || key === "]") {
    size.value = Number(size.value) * (key === "[" ? 0.8 : 1.25) + (key === "[" ? -1 : 1);
    draw();
  }
});
new ResizeObserver(draw).observe(stage);

window.paletteEditor = {
  value: () => JSON.stringify(photo && {
    path: photo.path,
    name: photo.name,
    mask: maskPicture(),
    extend: Object.fromEntries(Object.keys(sides).map((side) => [side, extended(side)])),
  }),
  show: (task) => {
    root.classList.toggle("inpaint", task === "inpaint");
    root.classList.toggle("uncrop", task === "uncrop");
    draw();
  },
  open: async (url, name) => loadPhoto(await (await fetch(url)).blob(), name),
};
window.paletteEditor.show(root.dataset.task);
