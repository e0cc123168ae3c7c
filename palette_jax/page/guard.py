"""Access control and storage quota of the page's server."""

import contextlib
import fcntl
import ipaddress
import os
import pathlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

_PREFIX, _LOCK = "palette_jax_", "server.lock"


class Guard:
    """Middleware that refuses requests of other sites, and uploads beyond a quota.

    Any site in the browser can send requests to addresses of this computer. Its name is
    in `Host` if its name resolves to this computer, else in `Origin`.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        allowed: Sequence[str],
        folder: str,
        max_bytes: int,
        max_total_bytes: int,
    ):
        """Accepts IP addresses, this computer's name, and the allowed names.

        Args:
          app: the guarded application.
          host: the address that the server listens at.
          allowed: host names of a web server in front.
          folder: of all files.
          max_bytes: of one request.
          max_total_bytes: of all files.
        """
        self._app, self._folder = app, pathlib.Path(folder)
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", host.lower()}
        self._allowed = set(map(str.lower, allowed))
        self._max_bytes, self._max_total_bytes = max_bytes, max_total_bytes
        self._arriving = 0  # Bytes of unfinished requests.

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        length = int(Headers(scope=scope).get("content-length", "0"))
        self._arriving += length
        try:
            await self._app(scope, receive, send)
        finally:
            self._arriving -= length

    def refusal(self, scope: Any) -> PlainTextResponse | None:
        """Returns the error response to a refused request."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return PlainTextResponse(
                "expected the address of this computer as Host, got another name; open"
                " the address that palette-jax demo printed, or start palette-jax demo"
                " with --allow-host=NAME",
                403,
            )
        if origin is not None and not self._is_same(origin, host):
            return PlainTextResponse(
                "expected a request of this page, got one of another site", 403
            )
        if scope.get("method") != "POST":
            return None
        length = headers.get("content-length", "")
        # Chunks override the length (RFC 9112, section 6.3).
        if not length.isdecimal() or "transfer-encoding" in headers:
            return PlainTextResponse(
                "expected a Content-Length alone, got none or chunks", 411
            )
        if int(length) > self._max_bytes:
            return PlainTextResponse(
                f"expected at most {self._max_bytes:,} bytes, got {int(length):,}", 413
            )
        if scope["path"].endswith("/upload"):
            taken = _size(self._folder) + self._arriving
            if taken + int(length) > self._max_total_bytes:
                return PlainTextResponse(
                    "the server has no room for more pictures; try again later", 507
                )
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name in self._names or name in self._allowed:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_same(self, origin: str, host: str) -> bool:
        """Whether a page is ours; a web server in front may use another name."""
        netloc = origin.partition("://")[2].lower()
        return netloc == host.lower() or _name(netloc) in self._allowed


def _name(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """Yields a folder that is deleted at the end, or at the next start if killed."""
    _sweep(pathlib.Path(tempfile.gettempdir()))
    path = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Locked before it gets its name: else another server could delete it as old.
    with (path / "new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path / "new", path / _LOCK)
        try:
            files = path / "files"
            files.mkdir()
            yield files
        finally:
            shutil.rmtree(path, ignore_errors=True)


def is_loopback(host: str) -> bool:
    """Whether only this computer can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def lan_address() -> str:
    """Returns this computer's address on its network, or else its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing. No computer has this address (RFC 5737).
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return probe.getsockname()[0]


def _sweep(parent: pathlib.Path) -> None:
    """Deletes this user's folders of dead servers, which hold no lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # It has no lock, or its server runs.
            continue


def _size(folder: pathlib.Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except OSError:  # Deleted meanwhile.
            continue
    return total
