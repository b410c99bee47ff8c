"""A stand-in for the Hugging Face Hub and its CDN on the loopback interface, to which the real Hub client talks."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Files = dict[str, bytes]


@dataclass
class Hub:
    """The contents of the Hub, and its misbehaviour. `asked` has every request that came in."""

    repos: dict[tuple[str, str], Files]  # (owner/name, commit) -> files
    lfs: tuple[str, ...] = (".safetensors", ".ckpt", ".pt")  # kept outside git, served by the CDN
    token: str = ""  # every request has to carry it; empty if none is required
    refusal: dict[str, tuple[int, str]] = field(default_factory=dict)  # repository -> status, X-Error-Code
    message: str = ""  # X-Error-Message of a refusal
    # file -> the fates of its next requests: a status, "cut" or "stall" in the middle, "damage"
    mishaps: dict[str, list[int | str]] = field(default_factory=dict)
    only: str = "GET"  # the mishaps concern only this method
    sizes: dict[str, int] = field(default_factory=dict)  # file -> a false size that the Hub declares
    stalled: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)  # server, method, path, headers
    endpoint: str = ""
    cdn: str = ""
    # For uploads:
    user: str = "someone"  # the owner of the token
    role: str = "write"  # of the token
    writable: tuple[str, ...] = ("someone", "team")  # owners in whose repositories the token may write
    heads: dict[str, str] = field(default_factory=dict)  # repository -> the commit of `main`
    private: dict[str, bool] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)  # of the commits
    objects: Files = field(default_factory=dict)  # large files by SHA-256
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)  # of large files that are sent in parts
    part_size: int | None = None  # bytes, to ask for parts
    # step of an upload (create, info, yaml, preupload, batch, put, commit) -> the fates of its next requests: a status,
    # "drop" the request before it is done, "lose" the answer after it, or "hide" that the repository exists
    troubles: dict[str, list[int | str]] = field(default_factory=dict)

    def at(self, repo: str) -> Files:
        """The files of a repository at `main`."""
        return self.repos[repo, self.heads[repo]]

    def steps(self) -> list[str]:
        """The method and the end of the path of every request that changed something."""
        return [f"{method} {path}" for _, method, path, _ in self.asked if method in ("POST", "PUT")]

    def transfers(self, name: str) -> list[dict[str, str]]:
        """The headers of all GET requests for the content of a file."""
        server = "cdn" if name.endswith(self.lfs) else "hub"
        return [h for s, method, path, h in self.asked if (s, method) == (server, "GET") and path.endswith(f"/{name}")]


class Reading(http.server.BaseHTTPRequestHandler):
    """The answers of the Hub to a client that reads."""

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
            (repo, revision), files = next(
                item for item in hub.repos.items() if path.startswith("/{}/{}/".format(*item[0]))
            )
            name = path.removeprefix(f"/{repo}/{revision}/")
            return self.content(files[name], name)
        asked = path.startswith("/api/")
        # A data set is one of the repositories under a name that begins with `datasets/`.
        repo = path.removeprefix("/api").removeprefix("/models").lstrip("/")
        repo, _, rest = repo.partition("/revision/" if asked else "/resolve/")
        revision, _, name = rest.partition("/")
        revision = hub.heads.get(repo, "main") if revision == "main" else revision
        if repo in hub.refusal:
            return self.say(*hub.refusal[repo])
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.say(401, "GatedRepo")
        if repo not in {known for known, _ in hub.repos}:
            return self.say(404, "RepoNotFound") if hub.token else self.say(401, "RepoNotFound")
        if (repo, revision) not in hub.repos:
            return self.say(404, "RevisionNotFound")
        files = hub.repos[repo, revision]
        if asked:
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
        status, start, stop = 200, 0, len(data)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(data)}"
        part = data[start:stop]
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
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Handler(Reading):
    """The answers of the Hub to a client that uploads, by git LFS over plain HTTP. Xet is not supported."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self.server_name == "hub" and path == "/api/whoami-v2":
            return self.upload_step("whoami", path)
        if self.server_name == "hub" and path.count("/") == 4 and path.startswith("/api/models/"):
            return self.upload_step("info", path)
        return super().do_GET()

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        ends = {
            "/api/repos/create": "create",
            "/api/validate-yaml": "yaml",
            "/preupload/main": "preupload",
            "/info/lfs/objects/batch": "batch",
            "/verify": "verify",
            "/complete": "complete",
            "/commit/main": "commit",
        }
        return self.upload_step(next(step for end, step in ends.items() if path.endswith(end)), path)

    def do_PUT(self) -> None:
        return self.upload_step("put", unquote(urlsplit(self.path).path))

    def upload_step(self, step: str, path: str) -> None:
        self.close_connection = True
        self.hub.asked.append((self.server_name, self.command, path, dict(self.headers)))
        body = self.body()
        queue = self.hub.troubles.get(step)
        trouble = queue.pop(0) if queue else None
        if isinstance(trouble, int):
            return self.say(trouble, "")
        if trouble == "drop":
            return None
        if trouble == "hide":
            return self.refuse(404, "Repository not found", "RepoNotFound")
        if self.server_name == "hub" and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401, "Invalid credentials in Authorization header")
        status, answer, headers = getattr(self, step)(path, body)
        if trouble == "lose":
            return None
        return self.send(status, json.dumps(answer).encode(), headers)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def may_write(self, repo: str) -> bool:
        return self.hub.role == "write" and repo.split("/")[0] in self.hub.writable

    def whoami(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        token = {"displayName": "tests", "role": self.hub.role}
        return 200, {"type": "user", "name": self.hub.user, "auth": {"type": "access_token", "accessToken": token}}, {}

    def info(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        repo = path.removeprefix("/api/models/")
        if repo not in self.hub.heads:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        told = {"id": repo, "sha": self.hub.heads[repo], "private": self.hub.private[repo], "siblings": []}
        return 200, told, {}

    def create(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{repo}"}
        if repo in self.hub.heads:
            return 409, {"error": "You already created this model repo"} | url, {}
        if not self.may_write(repo):
            return self.forbidden(f"You don't have the rights to create a model under the namespace {repo}")
        # The key depends on the version of the client. Without any key the repository is public.
        self.hub.private[repo] = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.heads[repo] = "0" * 40
        self.hub.repos[repo, "0" * 40] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        return 200, url, {}

    def yaml(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        try:
            front = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        except (yaml.YAMLError, IndexError) as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
        if not isinstance(front, dict) or front.get("license", "other") not in ("other", "mit", "apache-2.0"):
            return 400, {"errors": [{"message": '"license" must be one of [other, mit]'}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def preupload(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        repo = path.removeprefix("/api/models/").removesuffix("/preupload/main")
        if not self.may_write(repo):
            return self.forbidden(f"You are not authorized to write to {repo}")
        there = self.hub.at(repo)
        told = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            large = name.endswith(self.hub.lfs)
            oid = self.oid(name, there[name]) if name in there else None
            told.append({"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        return 200, {"files": told}, {}

    def oid(self, name: str, data: bytes) -> str:
        hashes = self.hashes(name, data)
        return hashes["lfs"]["sha256"] if "lfs" in hashes else hashes["blobId"]

    def batch(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        hub, told = self.hub, []
        for file in json.loads(body)["objects"]:
            oid, size = file["oid"], file["size"]
            entry: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in hub.objects:
                upload: dict[str, Any] = {"href": f"{hub.cdn}/{oid}"}
                if hub.part_size:
                    parts = {str(n): f"{hub.cdn}/{oid}/{n}" for n in range(1, -(-size // hub.part_size) + 1)}
                    upload = {"href": f"{hub.cdn}/{oid}/complete", "header": {"chunk_size": str(hub.part_size)}}
                    upload["header"] |= parts
                verify = {"href": f"{hub.endpoint}/{oid}/verify"}
                entry["actions"] = {"upload": upload, "verify": verify}
            told.append(entry)
        return 200, {"transfer": "multipart" if hub.part_size else "basic", "objects": told}, {}

    def put(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        _, oid, *part = path.split("/")
        if part:
            self.hub.parts.setdefault(oid, {})[int(part[0])] = body
        elif hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not what was announced"}, {}
        else:
            self.hub.objects[oid] = body
        return 200, {}, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    def complete(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        told = json.loads(body)
        parts = self.hub.parts[told["oid"]]
        data = b"".join(parts[part["partNumber"]] for part in told["parts"])
        if hashlib.sha256(data).hexdigest() != told["oid"]:
            return 400, {"error": "not what was announced"}, {}
        self.hub.objects[told["oid"]] = data
        return 200, {}, {}

    def verify(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        told = json.loads(body)
        found = self.hub.objects.get(told["oid"])
        return (200, {}, {}) if found is not None and len(found) == told["size"] else (404, {"error": "missing"}, {})

    def commit(self, path: str, body: bytes) -> tuple[int, Any, dict]:
        hub, repo = self.hub, path.removeprefix("/api/models/").removesuffix("/commit/main")
        files = dict(hub.at(repo))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] not in hub.objects:
                return 400, {"error": f"{value['path']} was not uploaded"}, {}
            else:
                files[value["path"]] = hub.objects[value["oid"]]
        commit = hashlib.sha1(hub.heads[repo].encode() + body).hexdigest()
        hub.repos[repo, commit], hub.heads[repo] = files, commit
        url = f"{hub.endpoint}/{repo}/commit/{commit}"
        return 200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}, {}

    @staticmethod
    def forbidden(message: str) -> tuple[int, Any, dict]:
        return 403, {"error": message}, {"X-Error-Message": message}


@contextmanager
def serve_hub(repos: dict[tuple[str, str], Files]) -> Iterator[Hub]:
    """A running Hub with these repositories. LFS files come from a CDN of another origin."""
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
