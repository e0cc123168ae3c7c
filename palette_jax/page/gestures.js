// Mouse, pen, fingers and keys. Part of editor.js.
const touches = new Map();  // Pressed pointers, with their positions.
let pinch = null, moving = null, spaceIsDown = false;

const onCanvas = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};
const onWhole = (event) => {
  const { x, y, scale } = layout(), at = onCanvas(event);
  return { x: (at.x - x) / scale, y: (at.y - y) / scale };
};
const onPhoto = (event) => {
  const { left, top } = layout(), at = onWhole(event);
  return { x: at.x - left, y: at.y - top };
};

function edgeNear(event) {
  const { width, height, scale } = layout(), { x, y } = onWhole(event);
  const distances = {
    left: Math.abs(x), right: Math.abs(x - width), top: Math.abs(y), bottom: Math.abs(y - height),
  };
  const [side, distance] = Object.entries(distances).sort((a, b) => a[1] - b[1])[0];
  return distance * scale < 24 ? side : null;
}

function pinched() {
  const [a, b] = [...touches.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!photo || !(layer() || task === "uncrop")) return;
  event.preventDefault();
  stage.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  touches.set(event.pointerId, onCanvas(event));
  if (touches.size === 2) {  // Two fingers zoom: undo the stroke of the first.
    if (stroke) layer().forget();
    stroke = dragged = null;
    pinch = pinched();
  } else if (event.button === 1 || spaceIsDown) moving = onCanvas(event);
  else if (task === "uncrop") {
    const side = edgeNear(event);
    if (side) dragged = { side, from: event, before: share(side), layout: layout() };
  } else if (touches.size === 1) {
    const erase = tool === "eraser" || event.button === 2;
    const color = task === "colorize" ? find(".color").value : undefined;
    stroke = { kind: "stroke", erase, radius: radius(), color, points: [onPhoto(event)] };
    layer().extend(stroke);
  }
  draw();
});

canvas.addEventListener("pointermove", (event) => {
  if (!photo) return;
  const at = onCanvas(event);
  if (touches.has(event.pointerId)) touches.set(event.pointerId, at);
  if (pinch && touches.size === 2) {
    const now = pinched();
    pan.x += now.x - pinch.x;
    pan.y += now.y - pinch.y;
    zoomAt(now.apart / Math.max(pinch.apart, 1), now.x, now.y);
    pinch = now;
  } else if (moving) {
    pan.x += at.x - moving.x;
    pan.y += at.y - moving.y;
    moving = at;
  } else if (dragged) {
    const across = ["left", "right"].includes(dragged.side);
    const sign = ["left", "top"].includes(dragged.side) ? -1 : 1;
    const moved = across ? event.clientX - dragged.from.clientX
      : event.clientY - dragged.from.clientY;
    const length = across ? photo.width : photo.height;
    const now = dragged.before + sign * moved / dragged.layout.scale / length;
    sides[dragged.side].value = Math.round(100 * clamp(now, 0, 4));
  } else if (stroke) {
    // A browser gathers fast moves into one event.
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) {
      stroke.points.push(onPhoto(one));
      layer().extend(stroke);
    }
  }
  pointer = onWhole(event);
  const side = task === "uncrop" && (dragged?.side || edgeNear(event));
  canvas.style.cursor = !side ? "" : ["left", "right"].includes(side) ? "ew-resize" : "ns-resize";
  draw();
});

for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, (event) => {
    touches.delete(event.pointerId);
    pinch = moving = dragged = null;
    if (stroke) change(stroke);
    stroke = null;
    draw();
  });
canvas.addEventListener("pointerleave", () => { pointer = null; draw(); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener("wheel", (event) => {
  if (!photo || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  const { x, y } = onCanvas(event);
  zoomAt(Math.exp(-event.deltaY / 200), x, y);
}, { passive: false });

// The files of an entry of the file system, without hidden files, each once.
async function filesOf(entry) {
  if (entry.name.startsWith(".") || entry.name === "@eaDir") return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), entries = [];
  for (;;) {  // A browser returns a hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    entries.push(...some);
  }
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(entries.map(filesOf))).flat();
}
// Browsers do not know all picture types that the server reads.
const isPicture = (file) => file.type.startsWith("image/")
  || /\.(avif|hei[cf]|jp2|p[bgnp]m|tga|tiff?|webp)$/i.test(file.name);

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const files = [...transfer.files];
  if (entries.some((entry) => entry?.isDirectory)) {
    const all = await Promise.all(entries.filter(Boolean).map(filesOf));
    openAll(all.flat().filter(isPicture));
  } else if (files.length) openAll(files);
  else say("expected a file, got none; save the picture first, then drop it here", true);
}
// Otherwise a file dropped outside of the frame would replace the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") dropped(event.dataTransfer);
  });
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) openAll([file]);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("palette-busy"))
    document.querySelector("#cancel").click();
  if (event.target.matches("input:not([type=range], [type=radio], [type=checkbox]), textarea"))
    return;
  const key = event.key.toLowerCase();
  if (key === " " && event.target === stage) {
    spaceIsDown = true;
    event.preventDefault();
  }
  if (!layer()) return;
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    event.preventDefault();
    actions[key === "y" || event.shiftKey ? "redo" : "undo"]();
  } else if (key === "[" || key === "]") {
    size.value = key === "[" ? size.value * 0.8 - 1 : size.value * 1.25 + 1;
    draw();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") spaceIsDown = false;
});
