"""A web server on the loopback interface that fails on demand, and records its requests and the bytes that it sent."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

PIECE = 1 << 14  # bytes


@dataclass
class Asked:
    """One request, and the bytes of the file that were sent in answer."""

    path: str
    range: str | None
    if_range: str | None
    at: float
    first: int = 0
    sent: int = 0


@dataclass
class Server:
    """A server of the files under `folder`. Each request uses up one of the `faults`; after the last, all is well.

    A fault is a dict. `status` and `headers` answer with an error. `stop` ends the body after this number of bytes: the
    server hangs up or, with `hang`, sends no more. `ranges`, `length` and `etag` override the server's own values.
    """

    folder: Path
    ranges: bool = True
    length: bool = True  # whether to send the length of a file
    chunked: bool = False  # whether to send the length of each piece instead
    etag: str | None = '"one"'
    last_modified: str | None = None
    pause: float = 0.0  # s between two pieces
    delay: float = 0.0  # s before an answer
    honour_if_range: bool = True
    faults: list[dict[str, Any]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    busy: int = 0  # the number of answers being sent
    busiest: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server_state: Server

    def do_GET(self) -> None:
        state = self.server_state
        state.busy += 1
        state.busiest = max(state.busiest, state.busy)
        time.sleep(state.delay)
        try:
            self.serve(state)
        finally:
            state.busy -= 1

    def serve(self, state: Server) -> None:
        fault = state.faults.pop(0) if state.faults else {}
        asked = Asked(self.path, self.headers["Range"], self.headers["If-Range"], time.monotonic())
        state.asked.append(asked)
        path = state.folder / unquote(self.path.split("?")[0]).lstrip("/")
        if self.path in state.redirects:
            return self.answer(302, {"Location": state.redirects[self.path], "Content-Length": 0})
        if "status" in fault:
            return self.answer(fault["status"], {"Content-Length": 0} | fault.get("headers", {}))
        if not path.is_file():
            return self.answer(404, {"Content-Length": 0})
        data = path.read_bytes()
        etag, modified = fault.get("etag", state.etag), state.last_modified
        headers: dict[str, Any] = {"ETag": etag} if etag else {}
        headers |= {"Last-Modified": modified} if modified else {}
        same = not asked.if_range or not state.honour_if_range or asked.if_range in (etag, modified)
        if asked.range and same and fault.get("ranges", state.ranges):
            asked.first = int(asked.range.removeprefix("bytes=").split("-")[0])
            if asked.first >= len(data):
                return self.answer(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": 0})
            headers["Content-Range"] = f"bytes {asked.first}-{len(data) - 1}/{len(data)}"
        body = data[asked.first :]
        if state.chunked:
            self.protocol_version = "HTTP/1.1"
            headers |= {"Transfer-Encoding": "chunked", "Connection": "close"}
        elif fault.get("length", state.length):
            headers["Content-Length"] = len(body)
        self.answer(206 if "Content-Range" in headers else 200, headers)
        for start in range(0, min(len(body), fault.get("stop", len(body))), PIECE):
            piece = body[start : min(start + PIECE, fault.get("stop", len(body)))]
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if state.chunked else piece)
            except OSError:
                return
            asked.sent += len(piece)
            time.sleep(state.pause)
        if state.chunked and asked.sent == len(body):
            self.wfile.write(b"0\r\n\r\n")
        if fault.get("hang"):
            state.stalled.set()
            time.sleep(10)

    def answer(self, status: int, headers: dict[str, Any]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Iterator[Server]:
    """A running server. With a certificate (and its key in the same file) it uses TLS."""
    state = Server(folder)
    handler = type("Handler", (Handler,), {"server_state": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # a client that was killed, or that refuses the certificate
    state.url = f"http://127.0.0.1:{server.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        state.url = f"https://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()
