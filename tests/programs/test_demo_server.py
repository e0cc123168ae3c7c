"""The server of the page, when it is killed and when others ask it."""

import pathlib
import signal
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page needs the extra `demo`")
from palette_jax.page import guard
from tests.programs import browse, test_demo
from tests.programs.browse import choose, open_photo

_FAST = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def _asked(
    host: str,
    *,
    origin: str | None = None,
    folder: str = ".",
    length: int | None = None,
) -> int:
    """Returns the status of a request of a server at 127.0.0.1; 200 if it is let in."""
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {
        "type": "http",
        "method": "GET" if length is None else "POST",
        "path": "/gradio_api/upload",
        "headers": headers,
    }
    guarded = guard.Guard(None, host="127.0.0.1", folder=folder, max_total_bytes=1000)
    refusal = guarded._refusal(scope)
    return 200 if refusal is None else refusal.status_code


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:7860", None, 200),
        ("localhost:7860", "http://localhost:7860", 200),
        ("[::1]:7860", "http://[::1]:7860", 200),
        ("192.168.1.9:7860", "http://192.168.1.9:7860", 200),
        ("evil.example:7860", None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("evil.example@[", None, 403),
        ("", None, 403),
        ("127.0.0.1:7860", "http://evil.example", 403),
        ("127.0.0.1:7860", "http://127.0.0.1:9999", 403),
        ("127.0.0.1:7860", "null", 403),
    ],
)
def test_other_sites_are_refused(host: str, origin: str | None, status: int) -> None:
    assert _asked(host, origin=origin) == status


def test_uploads_have_a_total_quota(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "upload").write_bytes(bytes(600))
    folder = str(tmp_path)
    assert _asked("localhost", folder=folder, length=400 - 1) == 200
    assert _asked("localhost", folder=folder, length=400 + 1) == 507


def test_only_folders_of_dead_servers_are_deleted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(guard.tempfile, "tempdir", str(tmp_path))
    dead, other = tmp_path / "palette_jax_dead", tmp_path / "palette_jax_other"
    for folder in (dead, other):
        folder.mkdir()
        (folder / "picture").write_bytes(b"private")
    (dead / "server.lock").touch()
    with guard.Folder() as first:
        assert not dead.exists() and other.exists()
        with guard.Folder() as second:
            assert first.files.is_dir() and second.files.is_dir()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.slow
def test_a_lost_terminal_deletes_the_files(tmp_path: pathlib.Path) -> None:
    test_demo._save_run(tmp_path)
    with browse.serve(
        tmp_path, f"--checkpoint={tmp_path}", "--host=0.0.0.0", **_FAST
    ) as server:
        assert "warning: everyone on the network" in server.log.read_text()
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
        ):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                request = urllib.request.Request(server.url, headers=headers)
                urllib.request.urlopen(request)
        assert list(server.folder.glob("palette_jax_*"))
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(120) == 0
        assert not list(server.folder.glob("palette_jax_*"))


@pytest.mark.slow
def test_a_server_that_was_killed_is_told_and_nothing_is_lost(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    test_demo._save_run(tmp_path)
    flag = f"--checkpoint={tmp_path}"
    photo = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    with browse.serve(tmp_path, flag, **_FAST) as server:
        page = browse.open_page(browser.new_context(), server.url)
        open_photo(page, "holiday.png", test_demo._png(photo))
        choose(page, "inpaint")
        test_demo._paint(page, 0.3, 0.6)
        mask = test_demo._mask(page)
        test_demo._ask_for(page, "paper", 8)
        page.click("#run")
        page.locator("#result .preview").wait_for()
        server.process.kill()
        server.process.wait(120)
        page.get_by_text("The server does not answer").wait_for(timeout=30_000)
        np.testing.assert_array_equal(test_demo._mask(page), mask)
        assert list(server.folder.glob("palette_jax_*"))
    port = int(server.url.rstrip("/").rsplit(":", 1)[1])
    with browse.serve(tmp_path, flag, port=port, **_FAST) as server:
        assert len(list(server.folder.glob("palette_jax_*"))) == 1
        page.get_by_text("The server is back").wait_for()
        np.testing.assert_array_equal(test_demo._mask(page), mask)
        page.click("#run")
        page.locator("#result .preview").wait_for()
        # Ctrl+C during a computation.
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
        assert not list(server.folder.glob("palette_jax_*"))
    page.context.close()
