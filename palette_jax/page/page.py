"""The page: a picture, what to do with it, and what came of it."""

import json
import logging
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from palette_jax.errors import UserError
from palette_jax.page import work
from palette_jax.page.guard import Guard
from palette_jax.page.visitors import Limits, Visitors, WaitingQueue
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.settings import QUALITY_PRESETS, SAMPLERS, Settings
from palette_jax.tasks import TASKS

_SAMPLERS = [("of the quality", ""), *((name, name) for name in SAMPLERS)]
_LARGE = [
    ("as fits the task", "auto"),
    ("restore a small copy, enlarge what is new", "shrink"),
    ("in tiles, at full size", "tiles"),
]
# The fields of the settings, in the order of the inputs.
_CHOICES = (
    "task",
    "quality",
    "num_samples",
    "seed",
    "num_steps",
    "sampler",
    "large",
    "keep_luminance",
)
# The editor is read in the browser, at the moment of the click.
_START = """(_, ...rest) => {
  window.paletteResult.show({ state: "running", text: "Sending…" });
  return [window.paletteEditor.value(), ...rest];
}"""


def make_page(restorer: Restorer, limits: Limits, visitors: Visitors) -> gr.Blocks:
    """Lays the page out; `launch` it with `launch_options`."""
    waiting = WaitingQueue(limits.max_waiting)

    def take(event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        visitor = visitors.of(request)
        sent = (event.upload, event.name, limits)
        try:
            if event.kind == "mask":
                answer = visitor.take_mask(*sent)
            else:
                answer = visitor.take(*sent, image_size=restorer.image_size)
        except UserError as error:
            answer = {"error": str(error)}
        except Exception:  # Of broken files that Pillow did not see to be such.
            logging.exception("A picture could not be read.")
            answer = {"error": "This file cannot be read: save it as PNG or JPEG."}
        return {**answer, "number": event.number, "kind": event.kind}

    def run(request: gr.Request, drawn: Any, *choices: Any) -> Iterator[dict]:
        chosen = dict(zip(_CHOICES, choices, strict=True))
        # Fields that were left empty.
        chosen |= {name: chosen[name] or None for name in ("sampler", "num_steps")}
        chosen |= {
            "seed": chosen["seed"] or 0,
            "num_samples": chosen["num_samples"] or 1,
        }
        yield from work.run(
            restorer, limits, waiting, visitors.of(request), drawn, chosen
        )

    def cancel(request: gr.Request) -> None:
        visitors.of(request).stop.set()

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    # Uploads that were never opened; the visitors' own files are deleted by them.
    age = (limits.keep_seconds // 6 or 1, limits.keep_seconds)
    with gr.Blocks(title="palette_jax", delete_cache=age) as page:
        gr.HTML(_heading(restorer), elem_id="heading", apply_default_css=False)
        with gr.Row():
            with gr.Column(min_width=340):
                task = gr.Radio(
                    [(TASKS[name].title, name) for name in restorer.task_names],
                    value=restorer.task_names[0],
                    label="What to do",
                    elem_id="task",
                )
                editor = _own(
                    "editor",
                    "mask.js",
                    "keep.js",
                    "editor.js",
                    "gestures.js",
                    task=restorer.task_names[0],
                    max_bytes=limits.max_bytes,
                    hints=restorer.knows_hints,
                    sentences={name: task.sentence for name, task in TASKS.items()},
                )
            with gr.Column(min_width=340):
                quality, num_samples, *others = _settings(restorer, limits)
                choices = [task, quality, num_samples, *others]
                start = gr.Button("Run", variant="primary", elem_id="run")
                stop = gr.Button("Cancel", elem_id="cancel")
                result = _own("result", "result.js")
                if "weights" in restorer.about:
                    _card()
        page.unload(visitors.leave)
        editor.upload(take, None, [editor], **private, concurrency_limit=2)
        # The queue of work.py says who waits, and can be left.
        start.click(
            run,
            [editor, *choices],
            [result],
            js=_START,
            concurrency_limit=None,
            **private,
        ).then(None, js="() => window.paletteResult.settle()")
        stop.click(cancel, queue=False, **private)
        # In the browser: it is known before the next click.
        results = {name: _num_samples(name, limits) for name in restorer.task_names}
        task.change(
            None,
            [task],
            [num_samples],
            js="task => { window.paletteEditor.task(task);"
            f" return {json.dumps(results)}[task]; }}",
        )
    return page


def launch_options(
    limits: Limits, *, host: str, allowed: Sequence[str]
) -> dict[str, Any]:
    """Returns what `Blocks.launch` takes: no fonts from elsewhere, no large files.

    Args:
      limits: of the host.
      host: the address that it listens at.
      allowed: names of a web server in front.
    """
    guarded = Middleware(
        Guard,
        host=host,
        allowed=allowed,
        folder=gr.utils.get_upload_folder(),
        # A mask goes with other things, and in a longer code.
        max_bytes=2 * limits.max_bytes,
        max_total_bytes=limits.max_total_bytes,
    )
    return {
        "app_kwargs": {"middleware": [guarded]},
        "theme": gr.themes.Default(
            primary_hue="indigo",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["monospace"],
        ),
        "css": _asset("page.css"),
        "max_file_size": limits.max_bytes,
        "footer_links": [],
        "show_error": True,
        "ssr_mode": False,
        "run_history": False,
    }


def _settings(restorer: Restorer, limits: Limits) -> list[gr.components.Component]:
    """Lays the settings out; returns them in the order of `_CHOICES`."""
    presets = [
        (f"{name}, {steps['num_steps']} steps", name)
        for name, steps in QUALITY_PRESETS.items()
    ]
    if restorer.student_steps:  # It knows no others.
        presets = [(f"{restorer.student_steps} steps, as it was distilled for", "fast")]
    quality = gr.Radio(
        presets,
        value=Settings.quality,
        label="Quality: more steps take longer",
        elem_id="quality",
    )
    with gr.Accordion("More settings", open=False):
        with gr.Row():
            num_samples = gr.Number(
                _num_samples(restorer.task_names[0], limits),
                precision=0,
                label=f"Number of results, up to {limits.max_samples}",
                min_width=120,
                elem_id="num_samples",
            )
            seed = gr.Number(
                0,
                precision=0,
                label="Seed",
                min_width=120,
                elem_id="seed",
            )
        with gr.Row():
            num_steps = gr.Number(
                0,
                precision=0,
                label="Steps, 0: of the quality",
                min_width=120,
                elem_id="num_steps",
            )
            sampler = gr.Dropdown(
                _SAMPLERS, value="", label="Sampler", min_width=120, elem_id="sampler"
            )
        large = gr.Dropdown(
            _LARGE, value="auto", label="Large pictures", elem_id="large"
        )
        keep_luminance = gr.Checkbox(
            True,
            label="Colorize: keep the brightness of every pixel",
            elem_id="keep_luminance",
        )
    return [quality, num_samples, seed, num_steps, sampler, large, keep_luminance]


def _num_samples(task: str, limits: Limits) -> int:
    """Returns how many results to choose from: several of what is a guess."""
    guesses = TASKS[task].shrinks or TASKS[task].needs_mask or TASKS[task].extends
    return min(4, limits.max_samples) if guesses else 1


def _card() -> None:
    """Says beside the result what to expect of the weights of the package."""
    title = (
        "A small network that has seen few pictures: what it does well, and what not"
    )
    with gr.Accordion(title, open=False, elem_id="card"):
        text = resources.files("palette_jax").joinpath("weights", "README.md")
        gr.Markdown(text.read_text("utf8"))


def _heading(restorer: Restorer) -> str:
    labels = [TASKS[name].title for name in restorer.task_names]
    names = [label[0].lower() + label[1:] for label in labels]
    size = restorer.image_size
    sentences = "".join(
        f"<li><b>{TASKS[name].title}:</b> {TASKS[name].sentence}</li>"
        for name in restorer.task_names
    )
    return (
        "<h1>palette_jax</h1><p>Open a picture, choose what to do, and run. The network"
        f" was trained to {', '.join(names)}, on pictures of {size} x {size} pixels."
        " Pictures stay on the computer that serves this page, and are deleted when you"
        f" close it.</p><ul>{sentences}</ul>"
    )


def _own(name: str, *scripts: str, **props: Any) -> gr.HTML:
    """Returns a part of the page that is drawn by our own files."""
    return gr.HTML(
        html_template=_asset(f"{name}.html"),
        js_on_load="\n".join(map(_asset, scripts)),
        apply_default_css=False,
        elem_id=name,
        **props,
    )


def _asset(name: str) -> str:
    return resources.files("palette_jax.page").joinpath(name).read_text("utf8")
