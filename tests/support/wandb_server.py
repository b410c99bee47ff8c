"""A loopback server that keeps what Weights & Biases' own client sends: the lines of each run's tables, and its files.

It answers the requests of `wandb sync` in wandb 0.27 (the queries and file streams of its `core/`), and nothing else.
"""

from __future__ import annotations

import gzip
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

Files = dict[str, list[str]]


class Handler(http.server.BaseHTTPRequestHandler):
    runs: dict[str, Files]
    uploads: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        answer = self.query(request) if self.path == "/graphql" else self.stream(request)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        """Keep a file, such as a sound, by `<run>/<its path>`."""
        self.uploads[unquote(self.path).removeprefix("/files/")] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"(?:query|mutation) (\w+)", request["query"])
        assert match
        variables = request.get("variables") or {}
        name = variables.get("name")
        if match[1] == "CreateRunFiles":
            place = f"http://{self.headers['Host']}/files/{variables['run']}"
            files = [{"name": file, "uploadUrl": f"{place}/{quote(file)}"} for file in variables["files"]]
            return {"data": {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}}
        if match[1] == "RunResumeStatus":
            return {
                "data": {"model": {"id": "p", "name": "p", "bucket": self.bucket(name) if name in self.runs else None}}
            }
        if match[1] == "UpsertBucket":
            new = name not in self.runs
            self.runs.setdefault(name, {})
            return {"data": {"upsertBucket": {"bucket": self.bucket(name), "inserted": new}}}
        return {"data": {}}

    def bucket(self, name: str) -> dict[str, Any]:
        history, events, output = (
            self.runs[name].get(file, []) for file in ("wandb-history.jsonl", "wandb-events.jsonl", "output.log")
        )
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "config": "{}",
            "wandbConfig": '{"t": 1}',  # marks a run that has begun
            "summaryMetrics": "{}",
            "tags": [],
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": len(output),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}},
        }

    def stream(self, request: dict[str, Any]) -> dict[str, Any]:
        """Store lines of a file. If they begin before its end, the run began anew, and they replace all from there on."""
        for file, chunk in (request.get("files") or {}).items():
            lines = self.runs[self.path.split("/")[-2]].setdefault(file, [])
            lines[chunk["offset"] :] = chunk["content"]
        return {}

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(uploads: dict[str, bytes] | None = None) -> Iterator[tuple[dict[str, str], dict[str, Files]]]:
    """The environment that leads the client to this server, and the lines that were sent, by run and file.

    `uploads` is for whole files, by `<run>/<path>`.
    """
    runs: dict[str, Files] = {}
    kept = {"runs": runs, "uploads": {} if uploads is None else uploads}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), kept))
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "0" * 40}, runs
    server.shutdown()
    server.server_close()
