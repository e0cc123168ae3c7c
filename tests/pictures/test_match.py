"""Names: exact ones first, a dot is no ending, and what is ambiguous is refused."""

import pytest

from palette_jax.pictures import match


def test_only_the_endings_of_pictures_are_endings() -> None:
    assert match.stem("x/img.2.png") == "x/img.2"
    assert match.stem("x/img.2") == "x/img.2"
    assert match.stem("v1.5/img") == "v1.5/img"


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
