"""Restorations of whole pictures whose result is known, and what they depend on."""

import dataclasses
import io
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from palette_jax.config.build_restorer import load_restorer
from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.pictures.files import Photo
from palette_jax.restoration.progress import Progress, Stopped
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides
from palette_jax.tasks.colorize import luma
from tests.restoration.oracle import (
    FILLED,
    constant,
    make_restorer,
    negative,
    noisy,
)

STEPS = {"sampler": "dpmpp_2m", "num_steps": 3}
SIZES = [(1, 1), (3, 20), (8, 8), (9, 33), (41, 29)]


def _photo(height: int, width: int, *, seed: int = 0) -> Photo:
    rng = np.random.default_rng(seed)
    return Photo(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _hole(height: int, width: int) -> np.ndarray:
    hole = np.zeros((height, width, 1), np.uint8)
    hole[height // 3 : height // 2 + 1, width // 4 :] = 1
    return hole


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_of_any_size_is_restored(size) -> None:
    photo = _photo(*size)
    # A task that keeps nothing of what is given.
    restorer = make_restorer(negative, task_names=("old_photo",))
    result = restorer.restore(photo, Settings("old_photo", **STEPS))
    wanted = 255 - photo.pixels.astype(int)
    assert np.abs(result.pictures[0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("large", ["tiles", "shrink"])
@pytest.mark.parametrize("size", SIZES)
def test_the_hole_is_painted_and_the_rest_kept_to_the_bit(size, large, tmp_path):
    photo, hole = _photo(*size), _hole(*size)
    settings = Settings("inpaint", large=large, **STEPS)
    result = make_restorer(constant).restore(photo, settings, hole=hole)
    result.save(tmp_path / "a.png")
    saved = files.read(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(
        np.where(hole, 0, saved), np.where(hole, 0, photo.pixels)
    )
    if large == "tiles":
        assert (saved[hole[..., 0] > 0] == FILLED).all()


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom", "all"])
def test_uncropping_adds_around_the_picture(side: str, tmp_path) -> None:
    photo = _photo(12, 20)
    settings = Settings("uncrop", extend=Sides.of(side, 0.5), large="tiles", **STEPS)
    result = make_restorer(constant).restore(photo, settings)
    result.save(tmp_path / "a.png")
    saved = files.read(tmp_path / "a.png").pixels
    top, left = 6 * (side in ("top", "all")), 10 * (side in ("left", "all"))
    np.testing.assert_array_equal(saved[top : top + 12, left : left + 20], photo.pixels)
    painted = np.ones(saved.shape[:2], bool)
    painted[top : top + 12, left : left + 20] = False
    assert painted.any() and (saved[painted] == FILLED).all()


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (30, 21)])
def test_the_batch_does_not_change_a_picture(size) -> None:
    photos = [_photo(*size, seed=seed) for seed in range(3)]
    photos += [_photo(17, 8, seed=9), photos[0]]
    settings = Settings("jpeg", num_samples=2, **STEPS)
    restorer = make_restorer(noisy)
    together = restorer.restore_many(photos, settings)
    for photo, result in zip(photos, together, strict=True):
        alone = restorer.restore(photo, settings)
        np.testing.assert_array_equal(alone.pictures, result.pictures)
    np.testing.assert_array_equal(together[0].pictures, together[4].pictures)


def test_the_seed_of_a_sample_gives_it_again() -> None:
    photo, restorer = _photo(10, 10), make_restorer(noisy)
    settings = Settings("jpeg", seed=5, num_samples=3, **STEPS)
    result = restorer.restore(photo, settings)
    assert settings.seeds == [5, 6, 7]
    for picture, alone in zip(result.pictures, settings.alone(), strict=True):
        again = restorer.restore(photo, alone).pictures[0]
        np.testing.assert_array_equal(again, picture)
    assert len({picture.tobytes() for picture in result.pictures}) == 3
    spread = np.std(np.float64(result.pictures), axis=0).mean(-1)
    np.testing.assert_allclose(result.deviation, spread, rtol=1e-4, atol=1e-3)


def test_a_hole_that_covers_nothing_changes_nothing() -> None:
    photo = _photo(9, 9)
    hole = np.zeros((9, 9, 1), np.uint8)
    for large in ("tiles", "shrink"):
        settings = Settings("inpaint", num_samples=2, large=large, **STEPS)
        result = make_restorer(constant).restore(photo, settings, hole=hole)
        np.testing.assert_array_equal(result.pictures, [photo.pixels] * 2)
    settings = Settings("uncrop", extend=Sides(left=0.01), **STEPS)
    with pytest.raises(UserError, match="a pixel or more"):
        make_restorer(constant).restore(photo, settings)


def test_luminance_is_kept_on_request() -> None:
    photo = _photo(20, 12)
    gray = np.dot(photo.pixels, [0.299, 0.587, 0.114])
    settings = Settings("colorize", keep_luminance=True, **STEPS)
    result = make_restorer(negative).restore(photo, settings)
    luma = np.dot(result.pictures[0], [0.299, 0.587, 0.114])
    assert np.abs(luma - gray).max() < 1.5


@pytest.mark.parametrize("gray", ["luma", "lightness"])
def test_the_luminance_kept_is_the_photos_whatever_the_network_is_given(gray) -> None:
    """Neither L* nor the red of a hint stands for it."""
    restorer = make_restorer(constant, knows_hints=True, gray=gray)
    photo, hints = _photo(8, 8), np.zeros((8, 8, 4), np.uint8)
    hints[2:5, 3:6] = (250, 20, 30, 255)
    settings = Settings("colorize", keep_luminance=True, **STEPS)
    result = restorer.restore(photo, settings, hints=Image.fromarray(hints)).pictures[0]
    kept, wanted = (luma(p).astype(int) for p in (result, photo.pixels))
    assert np.abs(kept - wanted).max() <= 1


def test_gray_pictures_stay_gray_unless_colorized() -> None:
    photo = Photo(_photo(9, 9).pixels[..., :1].repeat(3, -1), is_gray=True)
    hole = _hole(9, 9)
    restorer = make_restorer(noisy)
    inpainted = restorer.restore(photo, Settings("inpaint", **STEPS), hole=hole)
    colored = restorer.restore(photo, Settings("colorize", **STEPS))
    assert (np.ptp(inpainted.pictures[0], axis=-1) == 0).all()
    assert (np.ptp(colored.pictures[0], axis=-1) > 0).any()
    # What goes on from them does so, too.
    again = restorer.restore(
        colored.as_photo(), Settings("inpaint", **STEPS), hole=hole
    )
    kept = hole[..., 0] == 0
    np.testing.assert_array_equal(again.pictures[0][kept], colored.pictures[0][kept])
    assert inpainted.as_photo().is_gray and not colored.as_photo().is_gray


def test_progress_goes_to_the_end_and_shows_the_picture() -> None:
    seen: list[Progress] = []
    photo = _photo(12, 9)
    settings = Settings("jpeg", num_samples=5, **STEPS)
    result = make_restorer(negative).restore(
        photo, settings, on_progress=lambda progress: seen.append(progress)
    )
    done = [progress.done for progress in seen]
    assert done == sorted(done) and done[-1] == seen[-1].total == 5 * 3
    index, preview = seen[-1].preview()[0]
    np.testing.assert_array_equal(preview, result.pictures[index])


def test_the_progress_of_pictures_of_several_sizes_adds_up() -> None:
    photos = [_photo(8, 8, seed=seed) for seed in range(3)] + [_photo(17, 8)]
    seen: list[Progress] = []
    make_restorer(constant).restore_many(
        photos, Settings("jpeg", **STEPS), on_progress=seen.append
    )
    done = [progress.done for progress in seen]
    assert done == sorted(done) and {progress.total for progress in seen} == {12}
    # Three together, then the tiles of one.
    assert {3, 6, 9, 10, 11, 12} <= set(done) and done[-1] == 12


def test_a_restoration_can_be_stopped() -> None:
    steps = []

    def stop(progress: Progress) -> bool:
        steps.append(progress.done)
        return False

    with pytest.raises(Stopped):
        make_restorer(negative).restore(
            _photo(9, 9), Settings("jpeg", **STEPS), on_progress=stop
        )
    assert steps == [1]


def test_a_step_of_many_tiles_can_be_stopped_within() -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> bool:
        seen.append(progress)
        return len(seen) < 2

    photo, restorer = _photo(8, 600), make_restorer(negative)
    with pytest.raises(Stopped):
        restorer.restore(photo, Settings("jpeg", **STEPS), on_progress=stop)
    # In the first of three steps; what is shown before it is what was given.
    assert 0 < seen[0].done < seen[1].done < 1 and seen[1].total == 3
    [(_, preview)] = seen[1].preview()
    np.testing.assert_array_equal(preview, photo.pixels)


def test_a_task_that_was_not_trained_is_refused() -> None:
    restorer = make_restorer(constant, task_names=("inpaint",))
    with pytest.raises(UserError, match=r"trained for \(inpaint\), got colorize"):
        restorer.restore(_photo(8, 8), Settings("colorize", **STEPS))
    settings = Settings("uncrop", extend=Sides(left=0.5), **STEPS)
    result = restorer.restore(_photo(8, 8), settings)
    assert any("not for uncrop" in warning for warning in result.warnings)


def test_what_the_network_cannot_overlook_is_shrunk_or_warned_of() -> None:
    photo, restorer = _photo(20, 20), make_restorer(constant)
    thin, wide = np.zeros((2, 20, 20, 1), np.uint8)
    thin[2:18, 3:7] = 1  # As long as you like: 4 of 8 pixels are seen from its sides.
    wide[2:18, 3:8] = 1

    def painted(hole: np.ndarray, large: str) -> tuple[np.ndarray, list[str]]:
        settings = Settings("inpaint", large=large, **STEPS)
        result = restorer.restore(photo, settings, hole=hole)
        return result.pictures[0][hole[..., 0] > 0], result.warnings

    # What is shrunk and enlarged has a little of its surroundings at the border.
    assert (painted(thin, "auto")[0] == FILLED).all()
    assert not (painted(wide, "auto")[0] == FILLED).all()
    for hole in (thin, wide):
        assert painted(hole, "auto")[1] == []
        pixels, warnings = painted(hole, "tiles")
        assert (pixels == FILLED).all()
        assert bool(warnings) == (hole is wide)
    assert "wider than 4 pixels" in painted(wide, "tiles")[1][0]


def test_a_large_picture_is_colorized_from_a_small_copy_and_keeps_its_details() -> None:
    photo = _photo(40, 25)
    auto, shrunk, tiled = (
        make_restorer(negative).restore(
            photo, Settings("colorize", large=large, **STEPS)
        )
        for large in ("auto", "shrink", "tiles")
    )
    np.testing.assert_array_equal(auto.pictures, shrunk.pictures)
    gray, luma = (
        np.dot(picture, [0.299, 0.587, 0.114])
        for picture in (photo.pixels, auto.pictures[0])
    )
    assert np.abs(luma - gray).max() < 1.5
    np.testing.assert_allclose(tiled.pictures[0][..., 0], 255 - gray, atol=1.5)


def test_a_hole_where_nothing_is_seen_is_warned_of() -> None:
    alpha, hole = np.full((9, 9), 255, np.uint8), np.zeros((9, 9, 1), np.uint8)
    hole[:, :4] = 1
    for left, expected in ((0, False), (4, True)):
        alpha[:, :left] = 0
        photo = Photo(_photo(9, 9).pixels, alpha=alpha)
        result = make_restorer(constant).restore(
            photo, Settings("inpaint", **STEPS), hole=hole
        )
        assert any("transparent" in w for w in result.warnings) == expected


def test_a_picture_that_would_be_too_large_is_refused_before_it_is_made() -> None:
    settings = Settings("uncrop", extend=Sides.of("all", 16.0), **STEPS)
    with pytest.raises(UserError, match="at most 100,000,000 pixels with the ext"):
        make_restorer(constant).restore(_photo(400, 400), settings)


def test_notebooks_show_all_pictures_side_by_side() -> None:
    alpha = np.arange(12 * 9, dtype=np.uint8).reshape(9, 12)
    photo = dataclasses.replace(_photo(9, 12), alpha=alpha)
    for count in (1, 3):
        settings = Settings("jpeg", num_samples=count, **STEPS)
        result = make_restorer(noisy).restore(photo, settings)
        with Image.open(io.BytesIO(result._repr_png_())) as image:
            shown = np.asarray(image)
        assert shown.shape == (9, 16 * count - 4, 4)
        for i, picture in enumerate(result.pictures):
            here = shown[:, 16 * i : 16 * i + 12]
            np.testing.assert_array_equal(here[..., :3], picture)
            np.testing.assert_array_equal(here[..., 3], alpha)


def test_the_library_keeps_what_it_compiles(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        for wanted in (f"{tmp_path}/.cache/palette_jax/compiled", "/elsewhere"):
            # What the user has set stays.
            set_by_user = wanted if wanted == "/elsewhere" else None
            jax.config.update("jax_compilation_cache_dir", set_by_user)
            load_restorer(None, task="colorize")
            assert jax.config.jax_compilation_cache_dir == wanted
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("task", ["jpeg", "superres"])
def test_an_even_picture_keeps_the_colour_that_the_network_would_change(task) -> None:
    restorer = make_restorer(negative, task_names=(task,))
    photo = np.broadcast_to(np.array([90, 110, 140], np.uint8), (20, 33, 3))
    (picture,) = restorer.restore(photo, Settings(task, **STEPS)).pictures
    assert np.ptp(picture.astype(int) - photo[0, 0], axis=(0, 1)).max() <= 1
    assert np.abs(picture - photo[0, 0].astype(int)).max() <= 1


def test_a_jpegs_means_of_16_pixels_are_kept_and_nothing_finer() -> None:
    """Colours of 8 pixels, a block of the file, are the network's to change."""
    stripes = np.where(np.arange(48) % 16 < 8, 40, -40)[None, :, None]
    photo = np.broadcast_to(128 + stripes, (32, 48, 3)).astype(np.uint8)
    restorer = make_restorer(negative, task_names=("jpeg",))
    (picture,) = restorer.restore(photo, Settings("jpeg", **STEPS)).pictures
    assert np.abs(picture.astype(int) - (128 - stripes)).max() <= 1


def test_hints_of_another_size_keep_their_colours() -> None:
    photo, hints = _photo(8, 8), np.zeros((15, 11, 4), np.uint8)
    hints[4:9, 3:8] = (250, 20, 30, 255)
    hints[11:, 3:8] = (20, 250, 30, 127)  # Half transparent: not meant.
    restorer = make_restorer(constant, knows_hints=True)
    settings = Settings("colorize", **STEPS)
    _, prepared, _ = restorer.prepare(photo, settings, hints=Image.fromarray(hints))
    is_hint = prepared.hints[..., 0] > 0
    assert is_hint[2:5, 2:6].sum() > 4 and is_hint[:5].sum() == is_hint.sum()
    assert (prepared.x[is_hint] == (250, 20, 30)).all()
    gray = luma(photo.pixels).repeat(3, -1)
    np.testing.assert_array_equal(prepared.x[~is_hint], gray[~is_hint])


def test_a_hint_does_not_change_the_noise() -> None:
    """Other noise would give every pixel another luma."""
    photo, hints = _photo(8, 8), np.zeros((8, 8, 4), np.uint8)
    gray = luma(photo.pixels)
    hints[3, 4] = (*gray[3, 4].repeat(2), gray[3, 4, 0] ^ 1, 255)  # Almost gray.
    restorer = make_restorer(noisy, knows_hints=True)
    settings = Settings("colorize", keep_luminance=False, **STEPS)
    plain = restorer.restore(photo, settings).pictures[0].astype(int)
    hinted = restorer.restore(photo, settings, hints=hints).pictures[0].astype(int)
    lumas = [luma(picture.astype(np.uint8)).astype(int) for picture in (plain, hinted)]
    # Colours beyond a byte are clipped.
    assert np.abs(lumas[0] - lumas[1]).max() <= 10 and np.ptp(lumas[0]) > 200


def test_what_is_extended_is_opaque_and_what_is_enlarged_as_clear_as_before(
    tmp_path: pathlib.Path,
) -> None:
    alpha = np.random.default_rng(1).integers(0, 250, (9, 12), dtype=np.uint8)
    photo = dataclasses.replace(_photo(9, 12), alpha=alpha)
    restorer = make_restorer(constant, task_names=("uncrop", "superres"))
    settings = Settings("uncrop", extend=Sides(left=0.5, bottom=1.0), **STEPS)
    restorer.restore(photo, settings).save(tmp_path / "a.png")
    wanted = np.full((18, 18), 255)
    wanted[:9, 6:] = alpha
    np.testing.assert_array_equal(files.read(tmp_path / "a.png").alpha, wanted)
    larger = restorer.restore(photo, Settings("superres", **STEPS)).alpha
    assert larger is not None and larger.shape == (36, 48)
    means = larger[4:-4, 4:-4].reshape(7, 4, 10, 4).mean((1, 3))
    assert np.corrcoef(means.ravel(), alpha[1:-1, 1:-1].ravel())[0, 1] > 0.95


def test_hints_that_change_nothing_or_everything_are_refused() -> None:
    restorer, photo = make_restorer(constant, knows_hints=True), _photo(8, 8)
    hints = np.full((8, 8, 4), 200, np.uint8)
    for opacity in (0, 127, 128, 255):
        hints[..., 3] = opacity
        with pytest.raises(UserError, match="opaque everywhere or nowhere"):
            restorer.prepare(
                photo, Settings("colorize", **STEPS), hints=Image.fromarray(hints)
            )
    hints[2:5, :, 3] = 0
    with pytest.raises(UserError, match="hints with task colorize alone"):
        restorer.prepare(photo, Settings("jpeg", **STEPS), hints=Image.fromarray(hints))
