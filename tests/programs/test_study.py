"""The human study: its page in a real browser, and what is made of the answers."""

import csv
import math
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palette_jax.study import score
from tests.programs import browse
from tests.programs.untrained import command

METHODS = ("ours, new", "theirs")
COUNT = 5
HEAD = ",".join(score._COLUMNS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Originals, which are dark, and the results of two methods, which are bright."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for name, low in (("originals", 0), ("0", 200), ("1", 200)):
        for index in range(COUNT):
            path = folder / name / "deep" / f"photo {index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(low, low + 50, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def _make(monkeypatch: pytest.MonkeyPatch, folders: pathlib.Path, *args: object) -> int:
    methods = [f"--method={name}={folders / str(i)}" for i, name in enumerate(METHODS)]
    originals = f"--originals={folders / 'originals'}"
    return command(monkeypatch, "study", "make", originals, *methods, *args)


def _take(
    browser: Any, path: pathlib.Path, subject: str, answer: str
) -> list[dict[str, str]]:
    """Answers all pairs as `answer` says, without a network; returns the answers."""
    context = browser.new_context(accept_downloads=True, offline=True)
    page = context.new_page()
    page.set_default_timeout(browse.PATIENCE)
    errors, asked_for = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto(path.as_uri())
    page.fill("#subject", subject)
    page.keyboard.press("Enter")
    for index in range(COUNT - 1):
        page.get_by_text(f"Pair {index + 1} of {COUNT - 1}").wait_for()
        page.wait_for_selector("#left:not([disabled])")
        # Pictures from the camera are dark.
        sides = page.evaluate(
            """() => ['left', 'right'].map(side => {
              const canvas = document.createElement('canvas');
              const image = document.getElementById(`${side}-picture`);
              const context = canvas.getContext('2d');
              context.drawImage(image, 0, 0);
              return context.getImageData(3, 3, 1, 1).data[0];
            })"""
        )
        is_left_dark = sides[0] < 100
        assert (sides[0] < 100) != (sides[1] < 100)
        if answer == "keys":  # Always the camera's.
            page.keyboard.press("ArrowLeft" if is_left_dark else "ArrowRight")
        else:  # Always the other one, once both are out of sight.
            page.wait_for_selector("#pair.is-hidden", state="attached")
            page.click("#right" if is_left_dark else "#left")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.endswith(".csv")
    target = path.parent / f"{subject}.csv"
    download.value.save_as(target)
    assert page.input_value("#csv").split() == target.read_text().split()
    context.close()
    assert not errors
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked_for)
    with target.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_people_take_the_study_and_it_is_scored(
    monkeypatch: pytest.MonkeyPatch,
    folders: pathlib.Path,
    browser: Any,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "study.html"
    options = (f"--out={out}", f"--pairs={COUNT - 1}", "--seconds=0.5", "--seed=3")
    assert _make(monkeypatch, folders, *options) == 0
    right = _take(browser, out, "anna", "keys")
    wrong = _take(browser, out, "Bo", "buttons")
    for rows, fooled in ((right, "0"), (wrong, "1")):
        assert [row["trial"] for row in rows] == ["1", "2", "3", "4"]
        assert {row["fooled"] for row in rows} == {fooled}
        # Nobody sees a picture twice, and both methods are seen equally often.
        assert len({row["picture"] for row in rows}) == COUNT - 1
        methods = [row["method"] for row in rows]
        assert [methods.count(name) for name in METHODS] == [2, 2]
        assert {row["seconds"] for row in rows} == {"0.5"}
    order = [
        [(row["picture"], row["camera_side"]) for row in r] for r in (right, wrong)
    ]
    assert order[0] != order[1]
    # The same person in the same study sees the same, wherever it is opened.
    again = _take(browser, out, "anna", "keys")
    assert [(row["picture"], row["camera_side"]) for row in again] == order[0]

    capsys.readouterr()
    files = (tmp_path / "anna.csv", tmp_path / "Bo.csv")
    assert command(monkeypatch, "study", "score", *files) == 0
    said = capsys.readouterr().out
    for name in METHODS:
        line = next(line for line in said.splitlines() if line.startswith(name))
        # One person is always fooled and one never: two persons tell nothing.
        assert "50.0%" in line and "0.0% to 100.0%" in line
    assert "2 persons" in said


def test_the_interval_is_wilsons() -> None:
    # The bounds p are where (share - p)^2 = z^2 p (1 - p) / n.
    for successes, count in ((0, 10), (3, 7), (25, 50), (50, 50)):
        rate = score.wilson(successes, count)
        assert 0 <= rate.low <= rate.share <= rate.high <= 1
        for bound in (rate.low, rate.high):
            if 0 < bound < 1:
                z = abs(rate.share - bound) / math.sqrt(bound * (1 - bound) / count)
                assert z == pytest.approx(1.959964, abs=1e-5)


def test_the_interval_covers_the_rate_where_persons_and_pictures_differ() -> None:
    random = np.random.default_rng(1)
    persons, pictures, trials = 20, 20, 200
    covered = {"bootstrap": 0, "wilson": 0}
    for _ in range(trials):
        # Uniform effects around one half: the true rate is 0.5.
        chance = 0.5 + random.uniform(-0.25, 0.25, (persons, 1))
        chance = chance + random.uniform(-0.25, 0.25, (1, pictures))
        fooled = random.random((persons, pictures)) < chance
        answers = [
            score.Answer("s", str(i), j, str(j), "m", 3.0, bool(fooled[i, j]))
            for i in range(persons)
            for j in range(pictures)
        ]
        wilson = score.wilson(int(fooled.sum()), fooled.size)
        found = score.interval(answers)
        covered["bootstrap"] += found.low <= 0.5 <= found.high
        covered["wilson"] += wilson.low <= 0.5 <= wilson.high
    assert covered["bootstrap"] >= 0.92 * trials
    assert covered["wilson"] < 0.85 * trials  # What would not do.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "expected the columns"),
        ("a,b,c\n1,2,3\n", "got a,b,c"),
        (HEAD + "\n", "only the names of the columns"),
        (HEAD + "\ns,anna,1,p,m,3,left\n", "line 2: expected 10 values, got 7"),
        (HEAD + "\ns,anna,1,p,m,3,left,up,1,9\n", "left or right for answer, got 'up'"),
        (HEAD + "\ns,anna,1,p,m,3,left,left,1,9\n", "expected fooled=0"),
        (HEAD + "\ns,anna,one,p,m,3,left,left,0,9\n", "numbers for trial"),
        (HEAD + 2 * "\ns,anna,1,p,m,3,left,left,0,9", "trial 1 of 'anna' twice"),
        (HEAD + "\ns,,1,p,m,3,left,left,0,9\n", "a method and a subject"),
        (b"\xff\xfe\x00", "cannot read"),
        (None, "cannot read"),
    ],
)
def test_bad_answers_are_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    content: str | bytes | None,
    says: str,
) -> None:
    path = tmp_path / "answers.csv"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    assert command(monkeypatch, "study", "score", path) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(path) in error and says in error


def test_the_same_answers_in_two_files_count_once_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    for name in ("a.csv", "copy.csv"):
        (tmp_path / name).write_text(f"{HEAD}\ns,anna,1,p,m,3,left,left,0,9\n")
    paths = [tmp_path / "a.csv", tmp_path / "copy.csv"]
    assert command(monkeypatch, "study", "score", *paths) == 1
    error = capsys.readouterr().err
    assert "anna" in error and all(str(path) in error for path in paths)


def test_a_file_given_twice_counts_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEAD}\ns,anna,1,p,m,3,left,left,0,9\n")
    (tmp_path / "link.csv").symlink_to(path)
    for twice in (str(path), str(tmp_path / "link.csv")):
        assert len(score.read([str(path), twice])) == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--seconds=0"], "--seconds"),
        (["--pairs=0"], "--pairs"),
        (["--method=third"], "NAME=DIR"),
        (["--method=theirs=x"], "a name of its own"),
        (["--method=third=nowhere"], "nowhere"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    folders: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    args: list[str],
    says: str,
) -> None:
    out = tmp_path / "study.html"
    assert _make(monkeypatch, folders, f"--out={out}", *args) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and not out.exists()


def test_a_result_of_another_size_is_named(
    monkeypatch: pytest.MonkeyPatch,
    folders: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    shutil.copytree(folders, tmp_path / "copy")
    path = tmp_path / "copy" / "1" / "deep" / "photo 2.png"
    Image.open(path).resize((16, 24)).save(path)
    args = (f"--out={tmp_path / 'study.html'}", "--pairs=5")
    assert _make(monkeypatch, tmp_path / "copy", *args) == 1
    error = capsys.readouterr().err
    assert str(path) in error and "32 x 24" in error and "16 x 24" in error
