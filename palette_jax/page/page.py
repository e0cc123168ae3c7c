"""The page: the picture, the task, the settings and the result."""

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
from palette_jax.page.sessions import Limits, Sessions, WaitingQueue
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.settings import QUALITY_PRESETS, SAMPLERS, Settings
from palette_jax.tasks import TASKS

_SAMPLERS = [("of the quality", ""), *((name, name) for name in SAMPLERS)]
_LARGE = [
    ("as fits the task", "auto"),
    ("restore a small copy, enlarge the new part", "shrink"),
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


def make_page(restorer: Restorer, limits: Limits, sessions: Sessions) -> gr.Blocks:
    """Lays the page out; `launch` it with `launch_options`."""
    waiting = WaitingQueue(limits.max_waiting)

    def take(event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        session = sessions.of(request)
        sent = (event.upload, event.name, limits)
        try:
            if event.kind == "mask":
                answer = session.take_mask(*sent)
            else:
                answer = session.take(*sent, image_size=restorer.image_size)
        except UserError as error:
            answer = {"error": str(error)}
        except Exception:  # Of broken files that Pillow did not recognize as broken.
            logging.exception("A picture could not be read.")
            answer = {
                "error": "expected a picture, got a broken file; save it as PNG or JPEG"
            }
        return {**answer, "number": event.number, "kind": event.kind}

    def run(request: gr.Request, drawn: Any, *choices: Any) -> Iterator[dict]:
        chosen = dict(zip(_CHOICES, choices, strict=True))
        # Empty fields.
        chosen |= {name: chosen[name] or None for name in ("sampler", "num_steps")}
        chosen |= {
            "seed": chosen["seed"] or 0,
            "num_samples": chosen["num_samples"] or 1,
        }
        yield from work.run(
            restorer, limits, waiting, sessions.of(request), drawn, chosen
        )

    def cancel(request: gr.Request) -> None:
        sessions.of(request).stop.set()

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    # For uploads that were never opened; sessions delete their own files.
    age = (limits.keep_seconds // 6 or 1, limits.keep_seconds)
    with gr.Blocks(title="palette_jax", delete_cache=age) as page:
        gr.HTML(_heading(restorer), elem_id="heading", apply_default_css=False)
        with gr.Row():
            with gr.Column(min_width=340):
                task = gr.Radio(
                    [(TASKS[name].title, name) for name in restorer.task_names],
                    value=restorer.task_names[0],
                    label="Task",
                    elem_id="task",
                )
                editor = _own(
                    "editor",
                    "mask.js",
                    "reload.js",
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
        page.unload(sessions.leave)
        editor.upload(take, None, [editor], **private, concurrency_limit=2)
        # work.py has its own queue, which shows positions and can be left.
        start.click(
            run,
            [editor, *choices],
            [result],
            js=_START,
            concurrency_limit=None,
            **private,
        ).then(None, js="() => window.paletteResult.settle()")
        stop.click(cancel, queue=False, **private)
        # In the browser, so that the number changes before the next click.
        results = {name: _num_samples(name, limits) for name in restorer.task_names}
        task.change(
            None,
            [task, num_samples],
            [num_samples],
            js="(task, count) => { const editor = window.paletteEditor;"
            " editor.task(task);"
            f" return editor.countEntered ? count : {json.dumps(results)}[task]; }}",
        )
    return page


def launch_options(
    limits: Limits, *, host: str, allowed: Sequence[str]
) -> dict[str, Any]:
    """Returns arguments of `Blocks.launch`: no external fonts, no large files.

    `allowed` are host names of a web server in front.
    """
    guarded = Middleware(
        Guard,
        host=host,
        allowed=allowed,
        folder=gr.utils.get_upload_folder(),
        # A request holds the mask beside other fields, and in base64, which is longer.
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
    if restorer.student_steps:  # A student has one number of steps.
        presets = [(f"{restorer.student_steps} steps, as distilled", "fast")]
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
                0, precision=0, label="Seed", min_width=120, elem_id="seed"
            )
        with gr.Row():
            num_steps = gr.Number(
                0,
                precision=0,
                label="Steps, 0: those of the quality",
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
    """Returns the default number of results, several for tasks with guesses."""
    guesses = TASKS[task].shrinks or TASKS[task].needs_mask or TASKS[task].extends
    return min(4, limits.max_samples) if guesses else 1


def _card() -> None:
    """Shows the strengths and weaknesses of the package's weights beside the result."""
    title = "A small network, trained on few pictures: its strengths and weaknesses"
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
        "<h1>palette_jax</h1><p>Open a picture, choose a task, and run. The network was"
        f" trained to {', '.join(names)}, on pictures of {size} x {size} pixels."
        " Your pictures stay on the computer that serves this page, which deletes them"
        f" when you close the page.</p><ul>{sentences}</ul>"
    )


def _own(name: str, *scripts: str, **props: Any) -> gr.HTML:
    """Returns a component of the page from our own HTML and JavaScript files."""
    return gr.HTML(
        html_template=_asset(f"{name}.html"),
        js_on_load="\n".join(map(_asset, scripts)),
        apply_default_css=False,
        elem_id=name,
        **props,
    )


def _asset(name: str) -> str:
    return resources.files("palette_jax.page").joinpath(name).read_text("utf8")
