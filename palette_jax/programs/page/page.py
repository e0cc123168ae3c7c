"""The page: a picture, what to do with it, and what came of it."""

import threading
from collections.abc import Iterator
from importlib import resources
from typing import Any

import gradio as gr

from palette_jax.programs.page import work
from palette_jax.programs.page.work import Limits
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.settings import QUALITY_PRESETS

_LABELS = {
    "colorize": "Colorize",
    "inpaint": "Inpaint",
    "uncrop": "Extend",
    "jpeg": "Restore a JPEG",
    "paired": "Restore",
}
# The editor's value is read in the browser, at the moment of the click.
_READ_EDITOR = "(_, ...rest) => [window.paletteEditor?.value() ?? '', ...rest]"


def make_page(restorer: Restorer, limits: Limits) -> gr.Blocks:
    """Lays the page out; `launch` it with `launch_options`."""
    running: dict[str, threading.Event] = {}

    def run(request: gr.Request, *args: Any) -> Iterator[tuple]:
        visitor = str(request.session_hash)
        stop = running[visitor] = threading.Event()
        try:
            yield from work.run(restorer, limits, stop, *args)
        finally:  # Also when the visitor has gone.
            stop.set()
            running.pop(visitor, None)

    def cancel(request: gr.Request) -> None:
        if request.session_hash in running:
            running[request.session_hash].set()

    keep = limits.keep_seconds
    with gr.Blocks(title="palette_jax", delete_cache=(keep, keep)) as page:
        gr.Markdown(
            f"# palette_jax\nA model for {', '.join(restorer.task_names)}, trained on"
            f" pictures of {restorer.image_size} x {restorer.image_size} pixels. Larger"
            " ones are restored in tiles, or small and enlarged."
        )
        with gr.Row():
            with gr.Column(scale=3):
                gr.HTML(
                    html_template=_asset("editor.html"),
                    css_template=_asset("editor.css"),
                    js_on_load=_asset("editor.js"),
                    task=restorer.task_names[0],
                    elem_id="editor",
                )
            with gr.Column(scale=2, min_width=280):
                task = gr.Radio(
                    [(_LABELS[name], name) for name in restorer.task_names],
                    value=restorer.task_names[0],
                    label="Task",
                    elem_id="task",
                )
                quality = gr.Radio(list(QUALITY_PRESETS), value="fast", label="Quality")
                num_samples = gr.Slider(
                    1, limits.max_samples, 1, step=1, label="Number of results"
                )
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                with gr.Accordion("More", open=False):
                    sampler = gr.Dropdown(
                        work.SAMPLERS, value=work.SAMPLERS[0], label="Sampler"
                    )
                    num_steps = gr.Number(
                        0, precision=0, minimum=0, label="Steps (0: of the preset)"
                    )
                    shrink = gr.Checkbox(
                        label="Large pictures: restore small, and enlarge"
                    )
                    luma = gr.Checkbox(label="Colorize: keep the brightness exactly")
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="run")
                    stop = gr.Button("Cancel", elem_id="cancel")
        status = gr.Markdown(elem_id="status")
        preview = gr.HTML(elem_id="preview")
        slider = gr.ImageSlider(
            label="Before and after", type="filepath", visible=False, elem_id="compare"
        )
        results = gr.File(
            label="Results",
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="results",
        )
        again = gr.Button("Use the result as input", visible=False, elem_id="again")
        told = gr.Textbox(visible=False)
        gr.on(
            [start.click],
            run,
            [
                told,
                task,
                quality,
                num_samples,
                seed,
                sampler,
                num_steps,
                shrink,
                luma,
            ],
            [status, preview, slider, results, again],
            js=_READ_EDITOR,
            concurrency_limit=1,
            concurrency_id="device",
        )
        stop.click(cancel, queue=False)
        task.change(None, [task], js="task => { window.paletteEditor?.show(task); }")
        again.click(
            None,
            [results],
            js="files => { const f = files && files[0];"
            " f && window.paletteEditor.open(f.url, f.orig_name); }",
        )
    page.queue(max_size=limits.max_waiting, default_concurrency_limit=4)
    return page


def launch_options(limits: Limits) -> dict[str, Any]:
    """Returns what `Blocks.launch` takes: no fonts from elsewhere, no large files."""
    system = ["system-ui", "sans-serif"]
    return {
        "theme": gr.themes.Default(font=system, font_mono=["monospace"]),
        "max_file_size": limits.max_bytes,
        "footer_links": [],
        "show_error": True,
    }


def _asset(name: str) -> str:
    return resources.files("palette_jax.programs.page").joinpath(name).read_text()
