"""A stand-in for the Hugging Face Hub and its CDN on the loopback interface, for the real Hub client to talk to."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """What the Hub holds and how it misbehaves; `asked` is every request that came in."""

    repos: dict[tuple[str, str], Files]  # (owner/name, commit) -> files
    lfs: tuple[str, ...] = (".safetensors", ".ckpt", ".pt")  # kept outside git, served by the CDN
    token: str = ""  # which every request has to carry
    refusal: dict[str, tuple[int, str]] = field(default_factory=dict)  # repository -> status, X-Error-Code
    message: str = ""  # X-Error-Message of a refusal
    # file -> what happens to its next requests: a status, "cut" or "stall" in the middle, "damage"
    mishaps: dict[str, list[int | str]] = field(default_factory=dict)
    only: str = "GET"  # method that the mishaps are for
    sizes: dict[str, int] = field(default_factory=dict)  # file -> the size that is told instead of the true one
    stalled: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)  # server, method, path, headers
    endpoint: str = ""
    cdn: str = ""

    def transfers(self, name: str) -> list[dict[str, str]]:
        """Headers of the GET requests for the content of a file."""
        server = "cdn" if name.endswith(self.lfs) else "hub"
        return [h for s, method, path, h in self.asked if (s, method) == (server, "GET") and path.endswith(f"/{name}")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    server_name: str

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.close_connection = True
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.server_name, self.command, path, dict(self.headers)))
        if self.server_name == "cdn":
            _, repo_owner, repo_name, revision, name = path.split("/", 4)
            return self.content(hub.repos[f"{repo_owner}/{repo_name}", revision][name], name)
        repo, _, rest = (
            path.removeprefix("/api/models")
            .lstrip("/")
            .partition("/revision/" if path.startswith("/api/models/") else "/resolve/")
        )
        revision, _, name = rest.partition("/")
        if repo in hub.refusal:
            return self.say(*hub.refusal[repo])
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.say(401, "GatedRepo")
        if repo not in {known for known, _ in hub.repos}:
            return self.say(404, "RepoNotFound") if hub.token else self.say(401, "RepoNotFound")
        if (repo, revision) not in hub.repos:
            return self.say(404, "RevisionNotFound")
        files = hub.repos[repo, revision]
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": n, "size": len(d), **self.hashes(n, d)} for n, d in files.items()]
            return self.send(200, json.dumps({"id": repo, "sha": revision, "siblings": siblings}).encode(), {})
        if name not in files:
            return self.say(404, "EntryNotFound")
        data, headers = files[name], {"X-Repo-Commit": revision}
        if self.command == hub.only == "HEAD" and isinstance(mishap := self.mishap(name), int):
            return self.say(mishap, "")
        if not name.endswith(hub.lfs):
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return self.content(data, name, headers | {"ETag": f'"{blob}"'})
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(hub.sizes.get(name, len(data))),
            "ETag": '"of the redirection"',
            "Location": f"{hub.cdn}/{repo}/{revision}/{name}?Signature=of-the-cdn",
        }
        return self.send(302, b"", headers)

    def hashes(self, name: str, data: bytes) -> dict:
        if name.endswith(self.hub.lfs):
            return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}}
        return {"blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}

    def mishap(self, name: str) -> int | str | None:
        queue = self.hub.mishaps.get(name)
        return queue.pop(0) if queue else None

    def content(self, data: bytes, name: str, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        mishap = self.mishap(name) if self.command == self.hub.only == "GET" else None
        if isinstance(mishap, int):
            return self.say(mishap, "")
        if mishap == "damage":
            data = bytes([data[0] ^ 1]) + data[1:]
        status, start = 200, 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        broken = mishap in ("cut", "stall")
        self.send(status, part[: len(part) // 2] if broken else part, headers, length=len(part))
        if mishap == "stall":
            self.wfile.flush()
            self.hub.stalled.set()
            time.sleep(30)

    def say(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers |= {"X-Error-Message": self.hub.message} if self.hub.message else {}
        self.send(status, b"", headers)

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_hub(repos: dict[tuple[str, str], Files]) -> Iterator[Hub]:
    """A Hub with these repositories; LFS files come from a CDN of another origin."""
    hub = Hub(repos)
    servers = []
    for name in ("hub", "cdn"):
        handler = type("Bound", (Handler,), {"hub": hub, "server_name": name})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
