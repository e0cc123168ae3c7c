"""From the answers of a study to fool rates with their intervals."""

import collections
import csv
import json
import math
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from palette_jax.errors import UserError
from palette_jax.study.make import MIN_MILLISECONDS

_COLUMNS = (
    *("study", "attempt", "subject", "trial", "pair", "left", "answer"),
    *("seconds", "milliseconds", "shown", "screen"),
)
_MISSED_CATCHES = 1 / 3  # A person who misses more of them did not look.
_Z = 1.959963984540054  # Two-sided, 95%.
_RESAMPLES = 2000


class Answer(NamedTuple):
    """An answer of one person.

    Attributes:
      study: of which page.
      subject: the person, however the name was written.
      trial: its place among the person's answers, from 1.
      picture: the name of the pair that was shown.
      method: whose picture was beside the camera's; empty for a pair whose answer
        nobody can miss.
      seconds: how long the pair was shown.
      is_fooled: whether the method's picture was taken for the camera's.
      milliseconds: until the answer.
    """

    study: str
    subject: str
    trial: int
    picture: str
    method: str
    seconds: float
    is_fooled: bool
    milliseconds: int = 1000


Keys = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By study and pair: its picture, its method, and the place of the camera's."""


class Rate(NamedTuple):
    """How often people were fooled.

    Attributes:
      count: of answers.
      share: of the answers, 0 to 1; 0.5 if nobody can tell.
      low: of the 95% interval.
      high: of the 95% interval.
    """

    count: int
    share: float
    low: float
    high: float


def read_keys(paths: Sequence[str]) -> Keys:
    """Reads the answer keys that `study make` wrote, by study.

    Raises:
      UserError: naming a file that is none.
    """
    keys = {}
    for path in paths:
        try:
            found = json.loads(pathlib.Path(path).read_text("utf8"))
            keys[found["study"]] = {
                pair: {name: answer[name] for name in ("picture", "method", "camera")}
                for pair, answer in found["pairs"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"expected the answer key that `study make` wrote, got {path}"
                f" ({type(error).__name__}: {error})"
            ) from error
    return keys


def read(paths: Sequence[str], truth: Keys) -> list[Answer]:
    """Reads the files of all persons; a file given twice counts once.

    Raises:
      UserError: naming the file and the line that is not as the page writes them, or
        the files of which one person's answers come twice.
    """
    answers: list[Answer] = []
    owners: dict[tuple[str, str], str] = {}
    for path in {pathlib.Path(path).resolve(): path for path in paths}.values():
        found = _read_file(path, truth)
        for answer in found:
            person = (answer.study, answer.subject)
            owner = owners.setdefault(person, path)
            if owner != path:
                raise UserError(
                    f"expected each person's answers once, got those of"
                    f" {answer.subject!r} in {owner} and {path}; leave one out, or give"
                    " two persons two names"
                )
        answers += found
    return answers


def counted(answers: Sequence[Answer]) -> tuple[list[Answer], list[str]]:
    """Returns the answers that count, and what is said of the others.

    Those of persons do not count who miss more than a third of the pairs that nobody
    can miss, nor those that came too fast.
    """
    missed: dict[tuple[str, str], list[bool]] = collections.defaultdict(list)
    for answer in answers:
        if not answer.method:
            missed[answer.study, answer.subject].append(answer.is_fooled)
    out = {p for p, all_ in missed.items() if np.mean(all_) > _MISSED_CATCHES}
    said = []
    if out:
        names = ", ".join(sorted(subject for _, subject in out))
        said.append(f"left out, since they missed pairs that nobody can miss: {names}")
    slow = [a for a in answers if a.milliseconds >= MIN_MILLISECONDS]
    if len(slow) < len(answers):
        said.append(
            f"left out: {len(answers) - len(slow)} answers in less than"
            f" {MIN_MILLISECONDS} ms"
        )
    kept = [a for a in slow if a.method and (a.study, a.subject) not in out]
    if not kept:
        raise UserError(f"expected answers that count, got none; {'; '.join(said)}")
    return kept, said


def wilson(successes: int, count: int) -> Rate:
    """Returns a share and its 95% interval (Wilson 1927), within 0 and 1."""
    share = successes / count
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    spread = share * (1 - share) / count + _Z**2 / (4 * count**2)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(spread)
    return Rate(count, share, max(middle - half, 0.0), min(middle + half, 1.0))


def interval(answers: Sequence[Answer]) -> Rate:
    """Returns the share of fooled answers and its 95% interval.

    Answers of one person, and of one picture, resemble each other. So persons and
    pictures are resampled, independently of each other (the pigeonhole bootstrap,
    Owen 2007, "The pigeonhole bootstrap"). The interval is never narrower than
    Wilson's, which counts answers as independent.
    """
    persons = sorted({(answer.study, answer.subject) for answer in answers})
    pictures = sorted({answer.picture for answer in answers})
    counts = np.zeros((len(persons), len(pictures)))
    fooled = np.zeros_like(counts)
    row_of = {person: row for row, person in enumerate(persons)}
    column_of = {picture: column for column, picture in enumerate(pictures)}
    for answer in answers:
        place = row_of[answer.study, answer.subject], column_of[answer.picture]
        counts[place] += 1
        fooled[place] += answer.is_fooled
    random = np.random.default_rng(0)
    rows = _resampled(random, len(persons))
    columns = _resampled(random, len(pictures))
    totals = np.sum((rows @ counts) * columns, axis=1)
    shares = np.sum((rows @ fooled) * columns, axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    rate = wilson(int(fooled.sum()), len(answers))
    return rate._replace(
        low=min(rate.low, float(low)), high=max(rate.high, float(high))
    )


def rates(answers: Iterable[Answer]) -> dict[tuple[str, float], Rate]:
    """Returns the fool rate of each method and time, the two of which never mix."""
    grouped: dict[tuple[str, float], list[Answer]] = collections.defaultdict(list)
    for answer in answers:
        grouped[answer.method, answer.seconds].append(answer)
    return {key: interval(group) for key, group in sorted(grouped.items())}


def lines(answers: Sequence[Answer]) -> list[str]:
    """Returns the table of the fool rates, and what it is of."""
    answers, said = counted(answers)
    found = rates(answers)
    width = max(len(method) for method, _ in found) + 2
    table = [
        f"{'method':<{width}}{'shown':>7}{'answers':>9}{'fool rate':>11}   95% interval"
    ]
    for (method, seconds), rate in found.items():
        bounds = f"{100 * rate.low:.1f}% to {100 * rate.high:.1f}%"
        table.append(
            f"{method:<{width}}{f'{seconds:g} s':>7}{rate.count:>9}"
            f"{100 * rate.share:>10.1f}%   {bounds}"
        )
    persons = len({(answer.study, answer.subject) for answer in answers})
    studies = sorted({answer.study for answer in answers})
    plural = "person" if persons == 1 else "persons"
    return [
        *table,
        f"{persons} {plural}, study {', '.join(studies)}. 50% means that nobody can"
        " tell. The interval is a bootstrap over persons and pictures.",
        *said,
    ]


def _resampled(random: np.random.Generator, count: int) -> np.ndarray:
    """Returns how often each of `count` things is drawn, for each resample."""
    return random.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)


def _read_file(path: str, truth: Keys) -> list[Answer]:
    try:
        text = pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the answers in {path}: {error}") from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or tuple(rows[0]) != _COLUMNS:
        got = ",".join(rows[0]) if rows else "nothing"
        raise UserError(
            f"{path}: expected the columns {','.join(_COLUMNS)}, got {got[:200]}; give"
            " the files that the page of the study saves"
        )
    answers: list[Answer] = []
    for number, row in enumerate(rows[1:], 2):
        if row:
            answers.append(_answer(row, f"{path}, line {number}", truth))
    if not answers:
        raise UserError(f"{path}: expected answers, got only the names of the columns")
    trials = [(a.study, a.subject, a.trial) for a in answers]
    if len(set(trials)) < len(trials):
        twice = next(trial for trial in trials if trials.count(trial) > 1)
        raise UserError(
            f"{path}: expected each trial once, got trial {twice[2]} of {twice[1]!r}"
            " twice"
        )
    return answers


def _answer(row: list[str], place: str, truth: Keys) -> Answer:
    if len(row) != len(_COLUMNS):
        raise UserError(
            f"{place}: expected {len(_COLUMNS)} values, got {len(row)}: {','.join(row)}"
        )
    value = dict(zip(_COLUMNS, row, strict=True))
    for name, valid in (("answer", ("left", "right")), ("left", ("0", "1"))):
        if value[name] not in valid:
            raise UserError(
                f"{place}: expected {' or '.join(valid)} for {name}, got"
                f" {value[name]!r}"
            )
    if value["pair"] not in truth.get(value["study"], {}):
        raise UserError(
            f"{place}: expected a pair that an answer key has, got {value['pair']!r} of"
            f" study {value['study']!r}; give its key by --key=FILE"
        )
    try:
        trial, seconds = int(value["trial"]), float(value["seconds"])
        milliseconds = int(value["milliseconds"])
    except ValueError as error:
        raise UserError(
            f"{place}: expected numbers for trial, seconds and milliseconds, got"
            f" {value['trial']!r}, {value['seconds']!r} and {value['milliseconds']!r}"
        ) from error
    if not value["subject"]:
        raise UserError(f"{place}: expected a subject, got none")
    about = truth[value["study"]][value["pair"]]
    taken = int(value["left"]) if value["answer"] == "left" else 1 - int(value["left"])
    return Answer(
        value["study"],
        folded(value["subject"]),
        trial,
        about["picture"],
        about["method"],
        seconds,
        taken != about["camera"],
        milliseconds,
    )


def folded(name: str) -> str:
    """Returns one form of a name for all the ways in which a person writes it."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
