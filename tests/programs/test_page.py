"""A session's computation, without a browser and with a network that only counts."""

import argparse
import base64
import io
import pathlib
import shlex
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.pictures.files import Photo
from palette_jax.programs import restore
from palette_jax.restoration.progress import Progress, Stopped
from palette_jax.restoration.restorer import Restorer
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Sides, UserInputs

pytest.importorskip("gradio", reason="the page needs the extra `demo`")
from palette_jax.page import results, sessions, work
from palette_jax.page.results import as_command
from palette_jax.page.sessions import Limits, Session, WaitingQueue

CHOICES = {"task": "jpeg", "quality": "fast", "num_samples": 1, "seed": 0}


class Counting(Restorer):
    """Takes the place of a Restorer: a step is a moment, and can be told to fail."""

    image_size, task_names = 8, ("jpeg", "inpaint", "uncrop", "colorize")

    def __init__(self, *, num_steps: int = 4, error: Exception | None = None):
        self._num_steps, self._error = num_steps, error

    def restore(self, photo: Photo, settings: Settings, **options: Any) -> Result:
        self.hints = options["hints"]
        degraded = TASKS[settings.task].degrade(
            photo.pixels, UserInputs(options["hole"], settings.extend)
        )
        for done in range(1, self._num_steps + 1):
            time.sleep(0.01)
            progress = Progress(done, self._num_steps, lambda: [(0, degraded.x)])
            if options["on_progress"](progress) is False:
                raise Stopped
        if self._error:
            raise self._error
        pictures = [degraded.x] * settings.num_samples
        return Result(photo, settings, pictures, degraded.hole, [], {})


class Place(NamedTuple):
    """Where one asks."""

    session: Session
    queue: WaitingQueue

    def run(
        self,
        restorer: Any,
        *,
        limits: Limits | None = None,
        drawn: Any = None,
        **choices: Any,
    ) -> Iterator[dict[str, Any]]:
        return work.run(
            restorer,
            limits or Limits(),
            self.queue,
            self.session,
            drawn,
            CHOICES | choices,
        )


@pytest.fixture
def uploads(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def place(uploads: pathlib.Path) -> Place:
    """A session that has opened a picture of 12 x 10 pixels."""
    session = Session()
    Image.new("RGB", (12, 10), (200, 30, 30)).save(uploads / "sent.png")
    session.take(str(uploads / "sent.png"), "holiday.png", Limits(), image_size=8)
    return Place(session, WaitingQueue(1))


def _ends(place: Place) -> bool:
    """Whether the computation ends by itself."""
    assert place.session.ended is not None
    return place.session.ended.wait(60)


def test_a_computation_ends_with_files(place: Place) -> None:
    seen = list(place.run(Counting(), num_samples=2))
    assert [news["state"] for news in seen[:-1]] == ["running"] * (len(seen) - 1)
    assert 0 < seen[1]["share"] <= 1 and seen[1]["preview"].startswith("data:image/png")
    made = [pathlib.Path(result["path"]) for result in seen[-1]["results"]]
    assert [path.name for path in made] == [
        "holiday_jpeg_1.png",
        "holiday_jpeg_2.png",
    ]
    assert all(Image.open(path).size == (12, 10) for path in made)
    again = pathlib.Path(list(place.run(Counting()))[-1]["results"][0]["path"])
    assert again.exists() and not any(path.exists() for path in made)
    place.session.leave()
    assert not again.exists()


def test_a_session_ends_when_nothing_was_asked_for_a_while(
    uploads: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    everyone = sessions.Sessions(keep_seconds=100.0)

    def of(name: str) -> Session:
        return everyone.of(sessions.gr.Request(session_hash=name))

    idle, busy = of("idle"), of("busy")
    for now[0] in (60.0, 99.0, 120.0):
        assert of("busy") is busy and busy.folder.exists()
    assert not idle.folder.exists() and idle.stop.is_set()
    assert of("idle") is not idle


def test_the_time_left_is_that_of_the_steps_left() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    progress = Progress(4, 12, lambda: [(0, picture)])
    # The first of the four steps waited for the compiler.
    assert work._step(progress, 6.0, 3)["text"] == "Step 4 of 12, about 16 s left"


def test_where_results_differ_is_red_and_opaque_from_64_levels_on() -> None:
    pictures = [np.full((2, 3, 3), level, np.uint8) for level in (100, 100)]
    for column, by in enumerate((20, 64, 140)):
        pictures[1][:, column] += by
    photo, hole = Photo(pictures[0]), np.zeros((2, 3, 1), np.uint8)
    result = Result(photo, Settings("jpeg", num_samples=2), pictures, hole, [], {})
    _, _, encoded = results._deviation(result).partition(",")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert shown[..., :3].reshape(-1, 3).max(0).tolist() == [255, 0, 0]
    assert shown[0, :, 3].tolist() == [40, 128, 255]  # Of deviations 10, 32 and 70.


def test_hints_reach_the_network_as_they_were_drawn(place: Place) -> None:
    drawn = np.zeros((10, 12, 4), np.uint8)
    drawn[2:5, 3:7] = (200, 30, 40, 255)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    restorer = Counting()
    assert (
        list(place.run(restorer, task="colorize", drawn={"hints": url}))[-1]["state"]
        == "done"
    )
    np.testing.assert_array_equal(restorer.hints.alpha, drawn[..., 3])
    is_hint = drawn[..., 3] > 0
    np.testing.assert_array_equal(restorer.hints.pixels[is_hint], drawn[is_hint][:, :3])
    list(place.run(restorer, task="jpeg", drawn={"hints": url}))
    assert restorer.hints is None


def test_the_enlarged_picture_counts_towards_the_limit(place: Place) -> None:
    limits = Limits(max_pixels=16 * 120 - 1)
    *_, last = place.run(Counting(), limits=limits, task="superres")
    assert "at most 1,919 pixels in the result, got 1,920" in last["text"]


def test_cancelling_ends_the_thread(place: Place) -> None:
    news = place.run(Counting(num_steps=10**4))
    while "preview" not in next(news):
        pass
    place.session.stop.set()
    assert list(news)[-1] == {"state": "stopped", "text": "Stopped."}
    assert _ends(place)


def test_a_session_does_not_wait_for_a_step_that_is_stopped(place: Place) -> None:
    """But the next one does, since the device is busy."""
    may_end = threading.Event()

    class Long(Counting):
        def restore(self, *args: Any, **options: Any) -> Result:
            may_end.wait(60)
            return super().restore(*args, **options)

    news = place.run(Long())
    assert next(news)["state"] == "running"
    threading.Timer(0.1, place.session.stop.set).start()
    assert [last["state"] for last in news] == ["stopped"]
    again = place.run(Counting())
    assert next(again)["state"] == "waiting"
    may_end.set()
    assert list(again)[-1]["state"] == "done"
    assert _ends(place)


def test_the_files_of_a_closed_session_are_not_written_again(place: Place) -> None:
    may_end = threading.Event()

    class Late(Counting):
        def restore(self, *args: Any, **options: Any) -> Result:
            may_end.wait(60)
            place.session.folder.mkdir(exist_ok=True)
            (place.session.folder / "private").touch()
            return super().restore(*args, **options)

    news = place.run(Late())
    threading.Timer(0.1, place.session.leave).start()
    list(news)
    may_end.set()
    assert _ends(place) and not place.session.folder.exists()


def test_a_closed_session_leaves_no_thread_and_no_place(place: Place) -> None:
    news = place.run(Counting(num_steps=10**4))
    while "preview" not in next(news):
        pass
    news.close()
    assert _ends(place)
    assert list(place.run(Counting()))[-1]["state"] == "done"


def test_the_time_is_limited(place: Place) -> None:
    news = list(place.run(Counting(num_steps=10**4), limits=Limits(max_seconds=0.1)))
    assert news[-1]["state"] == "stopped" and "the time limit" in news[-1]["text"]
    assert _ends(place)


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (2_000_000, 1, "sides of at most 32,767 pixels, got 2,000,000 x 1"),
        (1, 80_000, "sides of at most 32,767 pixels, got 1 x 80,000"),
        # The network sees 64 rows, and each of them has to be computed.
        (20_000, 1, "at most 1,000,000 pixels"),
        (15_000, 50, None),
    ],
)
def test_strips_are_refused_that_become_large(
    place: Place, uploads: pathlib.Path, width: int, height: int, said: str | None
) -> None:
    Image.new("L", (width, height)).save(uploads / "sent.png")
    limits = Limits(max_pixels=2_000_000)
    strict = limits._replace(max_pixels=1_000_000)
    sent = (str(uploads / "sent.png"), "strip.png")
    if said is None:
        assert place.session.take(*sent, strict, image_size=64)["width"] == width
        return
    with pytest.raises(UserError, match=said):
        place.session.take(
            *sent, strict if height * width < 1e5 else limits, image_size=64
        )
    # What was open stays.
    assert place.session.photo(limits).pixels.shape == (10, 12, 3)


def test_the_queue_runs_one_after_the_other_and_is_limited(place: Place) -> None:
    queue = WaitingQueue(1)
    first, second = queue.join(), queue.join()
    with pytest.raises(UserError, match="a full queue"):
        queue.join()
    assert queue.wait(first, 0.0) == 0 and queue.wait(second, 0.0) == 1
    third_is_in = threading.Thread(target=lambda: queue.wait(second, 60.0))
    third_is_in.start()
    queue.leave(first)
    third_is_in.join(60)
    assert not third_is_in.is_alive() and queue.wait(second, 0.0) == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
            "more memory than available",
        ),
        (MemoryError(), "more memory than available"),
        (ZeroDivisionError("secret of the server"), "the server failed"),
        (UserError("expected a, got b; do c"), "expected a, got b; do c"),
    ],
)
def test_what_goes_wrong_is_said_without_a_trace(
    place: Place, error: Exception, said: str
) -> None:
    last = list(place.run(Counting(error=error)))[-1]
    assert last["state"] == "failed" and said in last["text"]
    assert "secret" not in last["text"]


@pytest.mark.parametrize(
    ("choices", "drawn", "said"),
    [
        ({"num_samples": 9}, None, "at most 8 results, got 9"),
        ({"num_samples": 0}, None, "num_samples >= 1"),
        ({"num_steps": 2001}, None, "at most 2,000 steps"),
        ({"seed": -1}, None, "expected a seed"),
        ({"task": "uncrop"}, {"extend": {"left": 0}}, "expected a side to extend"),
        ({"task": "uncrop"}, {"extend": {"left": 16}}, "at most 1,000 pixels"),
        ({"task": "uncrop"}, {"extend": {"top": 7.5}}, "1,000 pixels in the result"),
        ({"task": "uncrop"}, {"extend": {"left": "nan"}}, "by 0 to 16 times"),
        ({"task": "uncrop"}, {"extend": {"top": 1e300}}, "by 0 to 16 times"),
        ({"task": "inpaint"}, None, "expected a mask"),
        (
            {"task": "inpaint"},
            {"mask": "data:,bm90aGluZw=="},
            "holiday_mask.png: expected",
        ),
        ({"task": "inpaint"}, {"mask": 3}, "expected a mask"),
        ({"task": "nonsense"}, None, "expected task out of"),
    ],
)
def test_invented_values_of_a_session_are_refused(
    place: Place, choices: dict[str, Any], drawn: Any, said: str
) -> None:
    limits = Limits(max_pixels=1000)
    *_, last = place.run(Counting(), limits=limits, drawn=drawn, **choices)
    assert last["state"] == "failed" and said in last["text"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "picture.etcpass"),
        ("a\0b\n.png", "ab.png"),
        ("x" * 500 + ".jpeg", "x" * 80 + ".jpeg"),
        ("\N{GRINNING FACE}" * 80 + ".png", "\N{GRINNING FACE}" * 40 + ".png"),
        ("\u597d" * 80 + ".png", "\u597d" * 53 + ".png"),
        ("", "picture"),
    ],
)
def test_names_are_made_harmless(
    place: Place, uploads: pathlib.Path, name: str, kept: str
) -> None:
    Image.new("L", (9, 9)).save(uploads / "sent.png")
    answer = place.session.take(str(uploads / "sent.png"), name, Limits(), image_size=8)
    assert answer["name"] == kept
    *_, last = place.run(Counting())
    path = pathlib.Path(last["results"][0]["path"])
    assert path.is_file() and path.parent.parent == place.session.folder


def test_only_what_was_uploaded_is_taken(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "private.png"
    Image.new("L", (9, 9)).save(other)
    for path in (str(other), str(place.session.folder), "nowhere.png"):
        with pytest.raises(UserError, match="expected an uploaded file"):
            place.session.take(path, "x.png", Limits(), image_size=8)
    assert other.exists()


def test_postscript_is_no_picture_here(place: Place, uploads: pathlib.Path) -> None:
    """Pillow would run Ghostscript, a language of its own, on it."""
    Image.new("L", (9, 9)).save(uploads / "sent.eps")
    known = list(Image.ID)
    try:
        sessions.forbid_programs()
        with pytest.raises(UserError, match="expected a picture that Pillow reads"):
            place.session.take(
                str(uploads / "sent.eps"), "x.eps", Limits(), image_size=8
            )
    finally:
        Image.ID[:] = known


def test_a_large_picture_is_shown_small(place: Place, uploads: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 5000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(uploads / "sent.png")
    answer = place.session.take(
        str(uploads / "sent.png"), "wide.png", Limits(), image_size=8
    )
    assert (answer["width"], answer["height"]) == (5000, 30)
    assert len(answer["view"]) < 200_000


@pytest.mark.parametrize(
    "settings",
    [
        Settings("jpeg"),
        Settings("colorize", seed=2**32 - 1, quality="fast", keep_luminance=True),
        Settings("uncrop", extend=Sides(left=1 / 3, top=0.07), large="tiles"),
        Settings("inpaint", sampler="ddpm", num_steps=300, large="shrink"),
    ],
)
def test_the_command_says_all_settings(settings: Settings) -> None:
    about = {"checkpoint": "my run", "mask": "it's a mask.png"}
    program, name, *argv = shlex.split(as_command("-odd name.png", settings, about))
    assert (program, name) == ("palette-jax", "restore")
    parser = argparse.ArgumentParser()
    restore.add_arguments(parser)
    args = parser.parse_args(argv)
    assert args.photos == ["./-odd name.png"]
    assert (args.checkpoint, args.mask, args.hints) == (*about.values(), None)
    assert restore._settings(args, {}, Counting()) == settings
