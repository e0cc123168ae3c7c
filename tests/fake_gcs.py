"""A storage service on loopback, with so much of Google's JSON API as its clients use.

TensorFlow asks www.googleapis.com whatever it is told. So the server is also a proxy
for it: a client that is told of a proxy asks for a tunnel, and speaks TLS to us inside.
"""

import contextlib
import http.server
import json
import pathlib
import socketserver
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any


class Store:
    """Buckets in memory.

    Attributes:
      objects: bytes by `bucket/name`.
      reads: name and number of bytes of each download.
      failing: how many of the next downloads are answered by 503.
    """

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.reads: list[tuple[str, int]] = []
        self.failing = 0
        self.generation = 0
        self.generations: dict[str, int] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.lock = threading.RLock()

    def put(self, path: str, data: bytes) -> None:
        with self.lock:
            self.generation += 1
            self.objects[path] = data
            self.generations[path] = self.generation


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[tuple[Store, dict[str, str]]]:
    """Serves an empty store; yields it and the environment that leads clients to it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=DNS:*.googleapis.com,DNS:storage.googleapis.com"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=googleapis.com"
    subprocess.run(
        [*make.split(), "-addext", names, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    store = Store()
    handler = type("Handler", (_Handler,), {"store": store, "context": context})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield (
            store,
            {
                "https_proxy": address,
                "CURL_CA_BUNDLE": str(certificate),
                "NO_GCE_CHECK": "true",
                "GCE_METADATA_HOST": "127.0.0.1:1",
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            },
        )
    finally:
        server.shutdown()
        server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store
    context: ssl.SSLContext

    def log_message(self, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        tunnel = self.context.wrap_socket(self.connection, server_side=True)
        self.connection = self.request = tunnel
        self.rfile = tunnel.makefile("rb", -1)
        self.wfile = socketserver._SocketWriter(tunnel)
        self.close_connection = False

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _parts(self) -> tuple[list[str], dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        path = url.path.strip("/").split("/")
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        return [urllib.parse.unquote(part) for part in path], query

    def _about(self, path: str) -> dict[str, str]:
        bucket, _, name = path.partition("/")
        return {
            "bucket": bucket,
            "name": name,
            "size": str(len(self.store.objects[path])),
            "generation": str(self.store.generations[path]),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    def do_GET(self) -> None:
        parts, query = self._parts()
        store = self.store
        with store.lock:
            if parts[:2] == ["storage", "v1"] and len(parts) == 4:
                return self._answer(200, {"name": parts[3], "location": "US"})
            if parts[:2] == ["storage", "v1"] and len(parts) == 5:
                return self._answer(200, self._list(parts[3], query))
            if parts[:2] == ["storage", "v1"]:
                path = f"{parts[3]}/{parts[5]}"
                is_media = query.get("alt") == "media"
            else:
                path, is_media = "/".join(parts), True
            if path not in store.objects:
                return self._answer(404, {"error": {"code": 404}})
            if not is_media:
                return self._answer(200, self._about(path))
            return self._download(path)

    do_HEAD = do_GET

    def _download(self, path: str) -> None:
        store, data = self.store, self.store.objects[path]
        if store.failing:
            store.failing -= 1
            return self._answer(503)
        headers = {"X-Goog-Generation": str(store.generations[path])}
        span = self.headers.get("Range")
        if not span:
            store.reads.append((path, len(data)))
            return self._answer(200, data, **headers)
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = int(last) + 1 if first and last else len(data)
        if start >= len(data):
            return self._answer(416, Content_Range=f"bytes */{len(data)}")
        part = data[start:stop]
        store.reads.append((path, len(part)))
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        return self._answer(206, part, **headers)

    def _list(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        for path in sorted(self.store.objects):
            owner, _, name = path.partition("/")
            if owner != bucket or not name.startswith(prefix):
                continue
            if query.get("startOffset", "") > name:
                continue
            if query.get("endOffset") and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self._about(path))
        limit = int(query.get("maxResults", 1000))
        return {"items": items[:limit], "prefixes": sorted(prefixes)}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        parts, query = self._parts()
        body = self._body()
        store = self.store
        with store.lock:
            if parts[0] == "upload":
                path = f"{parts[4]}/{query['name']}"
                if query.get("uploadType") == "resumable":
                    number = str(len(store.uploads))
                    store.uploads[number] = (path, bytearray())
                    host = "https://www.googleapis.com"
                    place = f"{host}/resumable/{number}"
                    return self._answer(200, Location=place)
                expected = query.get("ifGenerationMatch")
                now = str(store.generations.get(path, 0))
                if expected is not None and expected != now:
                    return self._answer(412, {"error": {"code": 412}})
                store.put(path, body)
                return self._answer(200, self._about(path))
            # .../b/BUCKET/o/NAME/rewriteTo/b/BUCKET/o/NAME
            source, target = f"{parts[3]}/{parts[5]}", f"{parts[8]}/{parts[10]}"
            if source not in store.objects:
                return self._answer(404, {"error": {"code": 404}})
            store.put(target, store.objects[source])
            return self._answer(200, {"done": True, "resource": self._about(target)})

    def do_PUT(self) -> None:
        parts, _ = self._parts()
        body = self._body()
        store = self.store
        with store.lock:
            path, data = store.uploads[parts[1]]
            span = self.headers.get("Content-Range", "")
            if body:
                first = span.removeprefix("bytes ").partition("-")[0]
                del data[int(first) if first.isdigit() else 0 :]
                data += body
            total = span.rpartition("/")[2]
            if total not in ("", "*") and int(total) > len(data):
                return self._answer(308, Range=f"bytes=0-{len(data) - 1}")
            store.put(path, bytes(data))
            return self._answer(200, self._about(path))

    def do_DELETE(self) -> None:
        parts, _ = self._parts()
        with self.store.lock:
            path = f"{parts[3]}/{parts[5]}"
            if self.store.objects.pop(path, None) is None:
                return self._answer(404, {"error": {"code": 404}})
            del self.store.generations[path]
            return self._answer(204)
