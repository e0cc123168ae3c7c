// A layer to paint on, of the photograph's size: the mask, opaque where the picture is
// filled in, or the colour hints. It keeps its edits for undo. Part of editor.js.
const COLOR = "#f0f";

function makeLayer(width, height) {
  const canvas = document.createElement("canvas"), before = canvas.cloneNode();
  canvas.width = before.width = width;
  canvas.height = before.height = height;
  const context = canvas.getContext("2d"), beforeContext = before.getContext("2d");
  let edits = [], undone = [];  // In order; undo removes the last.

  function stroke({ erase, radius, points, color }, from = 0) {
    context.strokeStyle = color ?? COLOR;
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = 2 * radius;
    context.beginPath();
    context.moveTo(points[from].x - 1e-3, points[from].y);  // Else one point draws nothing.
    for (const point of points.slice(from)) context.lineTo(point.x, point.y);
    context.stroke();
  }
  function apply(edit) {
    context.globalCompositeOperation = "source-over";
    context.fillStyle = context.strokeStyle = COLOR;
    if (edit.kind === "stroke") return stroke(edit);
    if (edit.kind !== "invert") context.clearRect(0, 0, width, height);
    if (edit.kind === "draw") return context.drawImage(edit.image, 0, 0);
    if (edit.kind === "load") {
      context.drawImage(edit.image, 0, 0, width, height);
      context.globalCompositeOperation = "source-in";
    } else if (edit.kind === "invert") context.globalCompositeOperation = "xor";
    if (edit.kind !== "clear") context.fillRect(0, 0, width, height);
  }
  function copy(target, source) {
    target.globalCompositeOperation = "copy";
    target.drawImage(source, 0, 0);
  }
  function replay() {
    context.clearRect(0, 0, width, height);
    edits.forEach(apply);
    copy(beforeContext, canvas);
  }
  return {
    canvas,
    // An unfinished stroke: draws only the new points.
    extend(edit) {
      stroke(edit, Math.max(edit.points.length - 2, 0));
    },
    forget: () => copy(context, before),  // Removes the unfinished stroke.
    add(edit) {
      edits.push(edit);
      undone = [];
      copy(context, before);  // Soft edges would add up if a stroke were drawn in parts.
      apply(edit);
      copy(beforeContext, canvas);
    },
    undo() { if (edits.length) { undone.push(edits.pop()); replay(); } },
    redo() { if (undone.length) { edits.push(undone.pop()); replay(); } },
    isEmpty: () => !context.getImageData(0, 0, width, height).data.some(Boolean),
    // The hints, opaque at the true colours.
    colours() {
      const drawn = context.getImageData(0, 0, width, height);
      for (let i = 3; i < drawn.data.length; i += 4)
        drawn.data[i] = drawn.data[i] >= 128 ? 255 : 0;
      const target = document.createElement("canvas");
      [target.width, target.height] = [width, height];
      target.getContext("2d").putImageData(drawn, 0, 0);
      return target.toDataURL("image/png");
    },
    // White is filled in, black is kept.
    picture() {
      const drawn = context.getImageData(0, 0, width, height);
      const pixels = new Uint32Array(drawn.data.buffer);
      for (let i = 0; i < pixels.length; i++)
        pixels[i] = pixels[i] >>> 24 >= 128 ? 0xffffffff : 0xff000000;
      const target = document.createElement("canvas");
      [target.width, target.height] = [width, height];
      target.getContext("2d").putImageData(drawn, 0, 0);
      return target.toDataURL("image/png");
    },
  };
}
