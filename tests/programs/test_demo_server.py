"""The server of the page, when it is killed and when others ask it."""

import asyncio
import pathlib
import signal
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page needs the extra `demo`")
from palette_jax import cli
from palette_jax.page import guard
from tests.programs import browse, test_demo
from tests.programs.browse import choose, open_photo

_FAST = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

# How many pages the browser's database holds.
_KEPT = """new Promise(done => {
  const opening = indexedDB.open("palette_jax");
  opening.onsuccess = () => {
    const pages = opening.result.transaction("pages").objectStore("pages");
    pages.count().onsuccess = event => done(event.target.result);
  };
})"""


def _asked(
    host: str,
    *,
    origin: str | None = None,
    folder: str = ".",
    length: int | None = None,
    path: str = "/gradio_api/upload",
    chunked: bool = False,
) -> int:
    """Returns the status of a request of a server at 127.0.0.1; 200 if it is let in."""
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    if chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    scope = {
        "type": "http",
        "method": "GET" if length is None else "POST",
        "path": path,
        "headers": headers,
    }
    guarded = guard.Guard(
        None,
        host="127.0.0.1",
        allowed=["photos.example.org"],
        folder=folder,
        max_bytes=500,
        max_total_bytes=1000,
    )
    refusal = guarded.refusal(scope)
    return 200 if refusal is None else refusal.status_code


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:7860", None, 200),
        ("localhost:7860", "http://localhost:7860", 200),
        ("[::1]:7860", "http://[::1]:7860", 200),
        ("192.168.1.9:7860", "http://192.168.1.9:7860", 200),
        # A web server in front, which says its own name or ours.
        ("photos.example.org", "https://photos.example.org", 200),
        ("127.0.0.1:7860", "https://photos.example.org", 200),
        ("photos.example.org", "https://evil.example", 403),
        ("evil.example:7860", None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("evil.example@[", None, 403),
        ("", None, 403),
        ("127.0.0.1:7860", "http://evil.example", 403),
        ("127.0.0.1:7860", "http://127.0.0.1:9999", 403),
        ("127.0.0.1:7860", "null", 403),
        ("127.0.0.1:7860", "http://localhost:9999", 403),
        ("127.0.0.1:7860", "http://[", 403),
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
    # What is not stored is limited alone: a session can still cancel.
    assert _asked("localhost", folder=folder, length=401, path="/queue/join") == 200
    assert _asked("localhost", folder=folder, length=501, path="/queue/join") == 413
    # Chunks override a length that fits: their number is not known.
    assert _asked("localhost", folder=folder, length=9, chunked=True) == 411


def test_what_arrives_at_the_same_time_counts(tmp_path: pathlib.Path) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        seen.append(guarded.refusal(_upload(600)))  # While 600 others arrive.

    guarded = guard.Guard(
        slow,
        host="127.0.0.1",
        allowed=[],
        folder=str(tmp_path),
        max_bytes=900,
        max_total_bytes=1000,
    )
    seen: list[Any] = []
    asyncio.run(guarded(_upload(600), None, None))
    assert seen[0] is not None and seen[0].status_code == 507
    assert guarded.refusal(_upload(600)) is None


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--max-megapixels=nan", "1,000,000 for --max-megapixels"),
        ("--max-megapixels=inf", "1,000,000 for --max-megapixels"),
        ("--max-megapixels=0", "1,000,000 for --max-megapixels"),
        ("--max-seconds=-1", "from 0.001 to 1,000,000 for --max-seconds"),
        ("--max-seconds=nan", "from 0.001 to 1,000,000 for --max-seconds"),
        ("--port=0", "expected a whole number from 1 to 65,535 for --port"),
        ("--port=99999", "expected a whole number from 1 to 65,535 for --port"),
        ("--host=nope.invalid", "to listen at nope.invalid"),
        ("--host=192.0.2.7", "to listen at 192.0.2.7"),
    ],
)
def test_a_server_that_could_not_serve_is_refused_at_once(
    flag: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.run(["demo", "--checkpoint=nowhere", flag]) == 1
    assert said in capsys.readouterr().err


def _upload(length: int) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-length", str(length).encode())]
    return {"type": "http", "method": "POST", "path": "/upload", "headers": headers}


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
    with guard.temporary_folder() as first:
        assert not dead.exists() and other.exists()
        with guard.temporary_folder() as second:
            assert first.is_dir() and second.is_dir()
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
        assert page.locator(".editor.inpaint").is_visible()
        np.testing.assert_array_equal(test_demo._mask(page), mask)
        # And nothing of it stays in the browser.
        assert page.evaluate(_KEPT) == 0
        test_demo._ask_for(page, "paper", 8)
        page.click("#run")
        page.locator("#result .preview").wait_for()
        # Ctrl+C during a computation.
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
        assert not list(server.folder.glob("palette_jax_*"))
    page.context.close()
