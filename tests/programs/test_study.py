"""The human study: its page in a real browser, and what is made of the answers."""

import base64
import csv
import io
import json
import math
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from palette_jax.errors import UserError
from palette_jax.study import score
from tests.programs import browse
from tests.programs.untrained import command

METHODS = ("ours, new", "theirs")
COUNT, CATCHES = 5, 2
SHOWN = COUNT - 1 + CATCHES
HEAD = ",".join(score._COLUMNS)
LINE = "\ns,a1,anna,1,p,0,left,3,900,300x300,1280x720@1"
KEYS = {
    "s": {
        "p": {"picture": "p.png", "method": "m", "camera": 0},
        "catch": {"picture": "p.png", "method": "", "camera": 0},
    }
}


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


@pytest.mark.parametrize("where", ["originals", "deep/../originals", "copy"])
def test_originals_as_a_method_are_refused(
    monkeypatch, tmp_path, capsys, folders, where: str
) -> None:
    (folders / "deep").mkdir(exist_ok=True)
    shutil.copytree(folders / "originals", folders / "copy", dirs_exist_ok=True)
    out = tmp_path / "study.html"
    method = f"--method=mine={folders / where}"
    assert _make(monkeypatch, folders, method, f"--out={out}") == 1
    assert "of the method's results" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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
    for index in range(SHOWN):
        page.get_by_text(f"Pair {index + 1} of {SHOWN}").wait_for()
        page.wait_for_selector("#left:not([disabled])")
        is_left_camera = _is_left_camera(page)
        if answer == "keys" or is_left_camera[1]:  # Always the camera's.
            page.keyboard.press("ArrowLeft" if is_left_camera[0] else "ArrowRight")
        else:  # Always the other one, once both are out of sight.
            page.wait_for_selector("#pair.is-hidden", state="attached")
            page.click("#right" if is_left_camera[0] else "#left")
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


def _is_left_camera(page: Any) -> tuple[bool, bool]:
    """Which picture a camera took, and whether nobody can miss that.

    Pictures from the camera are dark and noisy, those of methods bright; those that
    nobody can take for one are dark and of a few large squares.
    """
    means, changes = zip(
        *page.evaluate(
            """() => ['left', 'right'].map(side => {
              const canvas = document.createElement('canvas');
              const image = document.getElementById(`${side}-picture`);
              const context = canvas.getContext('2d');
              context.drawImage(image, 0, 0);
              const row = [...context.getImageData(0, 1, 32, 1).data]
                .filter((_, i) => i % 4 === 0);
              const changes = row.slice(1).filter((v, i) => v !== row[i]).length;
              return [row.reduce((a, b) => a + b) / 32, changes];
            })"""
        ),
        strict=True,
    )
    if max(means) > 100:
        return means[0] < means[1], False
    assert min(changes) < 8 < max(changes)
    return changes[0] > changes[1], True


def test_two_people_take_the_study_and_it_is_scored(
    monkeypatch: pytest.MonkeyPatch,
    folders: pathlib.Path,
    browser: Any,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "study.html"
    options = (f"--out={out}", f"--pairs={COUNT - 1}", "--seconds=0.5", "--seed=3")
    assert _make(monkeypatch, folders, *options, f"--catches={CATCHES}") == 0
    # Neither names nor methods nor the truth are in the page.
    page, key = out.read_text(), tmp_path / "study.key.json"
    for word in ("photo", "ours", "theirs", 'camera"'):
        assert word not in page.split('id="study">')[1].split("</script>")[0]
    answers = json.loads(key.read_text())["pairs"]
    assert {answer["camera"] for answer in answers.values()} == {0, 1}
    keys = score.read_keys([str(key)])
    right = _take(browser, out, "anna", "keys")
    wrong = _take(browser, out, "Bo", "buttons")
    for rows, name, fooled in ((right, "anna", False), (wrong, "Bo", True)):
        assert [row["trial"] for row in rows] == list("123456")
        found = score.read([str(tmp_path / f"{name}.csv")], keys)
        real = [answer for answer in found if answer.method]
        assert {answer.is_fooled for answer in real} == {fooled}
        assert not any(answer.is_fooled for answer in found if not answer.method)
        # Nobody sees a picture twice, and both methods are seen equally often.
        assert len({answer.picture for answer in real}) == COUNT - 1
        methods = [answer.method for answer in found]
        assert [methods.count(name) for name in (*METHODS, "")] == [2, 2, CATCHES]
        assert {row["seconds"] for row in rows} == {"0.5"}
        assert min(int(row["milliseconds"]) for row in rows) >= 300
        (shown,) = {row["shown"] for row in rows}
        width, height = map(int, shown.split("x"))
        assert width > 100 and abs(width * 24 / 32 - height) <= 1
        assert {row["screen"] for row in rows} == {"1280x720@1"}
    attempts = {row["attempt"] for row in right + wrong}
    assert len(attempts) == 2
    order = [[(row["pair"], row["left"]) for row in r] for r in (right, wrong)]
    assert order[0] != order[1]
    # The same person in the same study sees the same, wherever it is opened.
    again = _take(browser, out, "anna", "keys")
    assert [(row["pair"], row["left"]) for row in again] == order[0]
    assert again[0]["attempt"] not in attempts

    capsys.readouterr()
    files = (tmp_path / "anna.csv", tmp_path / "Bo.csv")
    assert command(monkeypatch, "study", "score", f"--key={key}", *files) == 0
    said = capsys.readouterr().out
    for name in METHODS:
        line = next(line for line in said.splitlines() if line.startswith(name))
        # One person is always fooled and one never: two persons tell nothing.
        assert "50.0%" in line and "0.0% to 100.0%" in line
    assert "2 persons" in said


def test_the_key_says_which_picture_is_the_cameras(
    monkeypatch: pytest.MonkeyPatch, folders: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def make(seed: int) -> set[str]:
        """Checks a study of two pictures for one pair; returns which they are."""
        out = tmp_path / f"{seed}.html"
        options = (f"--out={out}", "--pairs=1", f"--seed={seed}", "--catches=1")
        assert _make(monkeypatch, folders, *options) == 0
        text = out.read_text().split('id="study">')[1].split("</script>")[0]
        content = json.loads(text)
        answers = json.loads(out.with_suffix(".key.json").read_text())["pairs"]
        pairs = [pair for pairs in content["pictures"] for pair in pairs]
        for name, *encoded in (*pairs, *content["catches"]):
            both = []
            for uri in encoded:
                data = base64.b64decode(uri.split(",")[1])
                both.append(np.asarray(Image.open(io.BytesIO(data))))
            about = answers[name]
            camera, other = both[about["camera"]], both[1 - about["camera"]]
            path = folders / "originals" / f"{about['picture']}.png"
            np.testing.assert_array_equal(camera, np.asarray(Image.open(path)))
            if not about["method"]:  # A few squares of the photo's own colours.
                assert len(np.unique(other.reshape(-1, 3), axis=0)) <= 36
                assert abs(other.mean() - camera.mean()) < 3
                continue
            index = METHODS.index(about["method"])
            path = folders / str(index) / f"{about['picture']}.png"
            np.testing.assert_array_equal(other, np.asarray(Image.open(path)))
        return {about["picture"] for about in answers.values()}

    assert len({tuple(sorted(make(seed))) for seed in range(5)}) > 1


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


@pytest.mark.parametrize("is_fooled", [False, True])
def test_resampled_rates_are_of_the_answers_there_are(is_fooled: bool) -> None:
    # Persons see different numbers of pictures, and all answer alike.
    answers = [
        score.Answer("s", str(i), j, str(j), "m", 3.0, is_fooled)
        for i in range(6)
        for j in range(i + 1)
    ]
    # No resample differs, so what is left is Wilson's interval.
    assert score.interval(answers) == score.wilson(21 * is_fooled, 21)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "expected the columns"),
        ("a,b,c\n1,2,3\n", "got a,b,c"),
        (HEAD + "\n", "only the names of the columns"),
        (HEAD + "\ns,a1,anna,1,p,0,left\n", "line 2: expected 11 values, got 7"),
        (HEAD + LINE.replace("left", "up"), "left or right for answer, got 'up'"),
        (HEAD + LINE.replace(",0,", ",2,"), "0 or 1 for left, got '2'"),
        (HEAD + LINE.replace(",p,", ",q,"), "a pair of an answer key, got 'q'"),
        (HEAD + LINE.replace("s,a1", "t,a1"), "of study 't'"),
        (HEAD + LINE.replace(",1,p", ",one,p"), "numbers for trial"),
        (HEAD + 2 * LINE, "trial 1 of 'anna' twice"),
        (HEAD + LINE + LINE.replace(",1,p", ",2,p"), "picture p.png of 'anna' twice"),
        (HEAD + LINE.replace("anna", ""), "a subject"),
        (HEAD + LINE.replace("anna", "\u3000 "), "a subject"),
        (HEAD + LINE.replace(",3,", ",nan,"), "numbers for trial"),
        (HEAD + LINE.replace(",3,", ",-1,"), "numbers for trial"),
        (HEAD + LINE.replace("anna", "a" * 200_000), "cannot read"),
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
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"study": "s", "pairs": KEYS["s"]}))
    assert command(monkeypatch, "study", "score", f"--key={key}", path) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(path) in error and says in error


def test_the_same_answers_in_two_files_count_once_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "a.csv").write_text(HEAD + LINE)
    # The same person, who wrote the name in another way and began again.
    other = LINE.replace("anna", " ANNA ").replace("a1", "b2")
    (tmp_path / "copy.csv").write_text(HEAD + other)
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"study": "s", "pairs": KEYS["s"]}))
    paths = [tmp_path / "a.csv", tmp_path / "copy.csv"]
    assert command(monkeypatch, "study", "score", f"--key={key}", *paths) == 1
    error = capsys.readouterr().err
    assert "anna" in error and all(str(path) in error for path in paths)


@pytest.mark.parametrize("camera", [0, 1])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("answer", ["left", "right"])
def test_who_takes_the_other_picture_for_the_cameras_is_fooled(
    tmp_path: pathlib.Path, camera: int, left: int, answer: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + LINE.replace(",0,left", f",{left},{answer}"))
    key = {"s": {"p": {**KEYS["s"]["p"], "camera": camera}}}
    (found,) = score.read([str(path)], key)
    is_camera_left = camera == left
    assert found.is_fooled == (is_camera_left != (answer == "left"))


def test_rates_are_of_a_method_and_the_time_that_it_was_shown() -> None:
    answers = [
        score.Answer("s", str(i), i, str(i), method, seconds, i < fooled)
        for method, seconds, fooled in (("a", 1.0, 2), ("a", 3.0, 4), ("b", 1.0, 6))
        for i in range(8)
    ]
    shares = {key: rate.share for key, rate in score.rates(answers).items()}
    assert shares == {("a", 1.0): 0.25, ("a", 3.0): 0.5, ("b", 1.0): 0.75}


def test_a_file_given_twice_counts_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + LINE)
    (tmp_path / "link.csv").symlink_to(path)
    for twice in (str(path), str(tmp_path / "link.csv")):
        assert len(score.read([str(path), twice], KEYS)) == 1


def test_who_does_not_look_does_not_count() -> None:
    def answers(subject: str, missed: int, milliseconds: int) -> list[score.Answer]:
        catches = [
            score.Answer("s", subject, 10 + i, "c", "", 3.0, i < missed, 900)
            for i in range(3)
        ]
        real = [
            score.Answer("s", subject, i, f"{i}", "m", 3.0, True, milliseconds)
            for i in range(4)
        ]
        return catches + real

    looks, slips = answers("looks", 0, 300), answers("slips", 1, 900)
    blind, hasty = answers("blind", 2, 900), answers("hasty", 0, 299)
    kept, notes = score.filter_answers([*looks, *slips, *blind, *hasty])
    assert {answer.subject for answer in kept} == {"looks", "slips"}
    assert len(kept) == 8 and all(answer.method for answer in kept)
    assert "blind" in notes[0] and "4 answers in less than 300 ms" in notes[1]
    assert not score.filter_answers(looks)[1]
    with pytest.raises(UserError, match="answers that count, got none"):
        score.filter_answers(blind)


def test_a_page_that_is_loaded_again_goes_on_behind_the_pair_last_seen(
    monkeypatch: pytest.MonkeyPatch,
    folders: pathlib.Path,
    browser: Any,
    tmp_path: pathlib.Path,
) -> None:
    out = tmp_path / "study.html"
    options = (f"--out={out}", "--pairs=4", "--seconds=0.4", "--catches=0")
    assert _make(monkeypatch, folders, *options) == 0
    page = browser.new_context(offline=True).new_page()
    page.set_default_timeout(browse.PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(out.as_uri())
    page.fill("#subject", "Anna")
    page.keyboard.press("Enter")
    page.wait_for_selector("#left:not([disabled])")
    page.click("#left")
    page.get_by_text("Pair 2 of 4").wait_for()
    page.wait_for_selector("#left:not([disabled])")
    page.reload()
    page.fill("#subject", " ANNA")
    page.keyboard.press("Enter")
    for number in (3, 4):
        page.get_by_text(f"Pair {number} of 4").wait_for()
        page.wait_for_selector("#left:not([disabled])")
        page.click("#left")
    page.wait_for_selector("#end:not([hidden])")
    rows = list(csv.DictReader(page.input_value("#csv").splitlines()))
    assert [row["trial"] for row in rows] == ["1", "3", "4"]
    assert len({row["attempt"] for row in rows}) == 1
    assert {row["subject"] for row in rows} == {"anna"}
    page.context.close()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--seconds=0"], "--seconds"),
        (["--pairs=0"], "--pairs"),
        (["--method=third"], "NAME=DIR"),
        (["--method=theirs=x"], "a unique name"),
        (["--method=third=nowhere"], "nowhere"),
        (["--catches=100000"], "from 0 to 100 for --catches"),
        (["--key=study.html", "--out=study.html"], "two files"),
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


def test_the_key_of_a_study_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, folders: pathlib.Path, tmp_path, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _make(monkeypatch, folders) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"study.html", "study.key.json"}
    for args in ((), ("--out=other.html", "--key=study.key.json")):
        assert _make(monkeypatch, folders, "--seed=1", *args) == 1
        assert "study.key.json exists" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert _make(monkeypatch, folders, "--out=other.html") == 0


def test_an_answer_key_of_another_form_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys
) -> None:
    (tmp_path / "answers.csv").write_text(HEAD + LINE)
    key, about = tmp_path / "key.json", KEYS["s"]["p"]
    for camera in ("0", 2, None):
        pairs = {"p": {**about, "camera": camera}}
        key.write_text(json.dumps({"study": "s", "pairs": pairs}))
        args = ("score", f"--key={key}", tmp_path / "answers.csv")
        assert command(monkeypatch, "study", *args) == 1
        assert "a camera that is not 0 or 1" in capsys.readouterr().err


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
