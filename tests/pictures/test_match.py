"""Names: exact ones first, a dot is no ending, and what is ambiguous is refused."""

import pytest

from palette_jax.errors import UserError
from palette_jax.pictures import match, walk


def test_only_the_endings_of_pictures_are_endings() -> None:
    assert walk.stem("x/img.2.png") == "x/img.2"
    assert walk.stem("x/img.2") == "x/img.2"
    assert walk.stem("v1.5/img") == "v1.5/img"


def test_each_picture_gets_its_own_mask() -> None:
    masks = ["img.png", "img.2.png", "ok.json", "ok.png", "a.jpg", "a.png"]
    for name in ("img.png", "img.2.png", "a.png", "a.jpg"):
        assert match.partner(name, masks) == name
    assert match.partner("ok.jpg", masks) == "ok.png"
    assert match.partner("img.3.png", masks) is None
    with pytest.raises(match.AmbiguousError, match=r"a\.jpg, a\.png"):
        match.partner("a.webp", masks)


def test_a_line_names_a_picture_or_is_refused() -> None:
    names = ["x/1.png", "y/1.png", "x/2.jpg", "img.png", "img.2.png", "3.png"]
    index = match.Names(names)
    for line, meant in {
        "x/1.png": "x/1.png",
        "x/1": "x/1.png",
        "x/1.JPEG": "x/1.png",
        "2.jpg": "x/2.jpg",
        "val/2.JPEG": "x/2.jpg",
        "img.2": "img.2.png",
        "img": "img.png",
        "4.png": None,
    }.items():
        assert index.find(line) == meant, line
    for line in ("1.png", "1", "z/1.png"):
        with pytest.raises(match.AmbiguousError, match=r"x/1\.png, y/1\.png"):
            index.find(line)


def test_accents_of_one_or_two_characters_are_equal() -> None:
    composed, decomposed = "caf\u00e9/\u00e9", "cafe\u0301/e\u0301"
    assert match.partner(f"{composed}.jpg", [f"{decomposed}.png"]) is not None
    assert match.partner(f"{decomposed}.png", [f"{composed}.png"]) is not None
    exact = [f"{composed}.png", f"{decomposed}.png"]
    assert match.partner(exact[1], exact) == exact[1]
    for line in (composed, f"{composed}.JPEG", "\u00e9.png", "x/\u00e9"):
        assert match.Names([f"{decomposed}.png"]).find(line) == f"{decomposed}.png"
    one, other = (match.by_stem([f"{n}.png"], "x") for n in (composed, decomposed))
    assert one.keys() == other.keys()


def test_lines_of_two_folders_do_not_mean_one_picture() -> None:
    lines = ["a/1.png 3", "1.png", "/data/a/1"]
    assert set(match.find_listed(lines, ["a/1.png"], "list").values()) == {"a/1.png"}
    # The last two end alike, but are of two folders.
    for lines in (["a/1.png", "b/1.png"], ["b/1", "c/1"], ["a/1", "xa/1"]):
        with pytest.raises(UserError, match=r"got a/1\.png for"):
            match.find_listed(lines, ["a/1.png"], "list")
