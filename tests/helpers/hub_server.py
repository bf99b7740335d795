"""A Hub on the loopback interface: repositories of any size, every request recorded, and the faults that real servers have."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from huggingface_hub import constants

CHUNK = 2**16


@dataclasses.dataclass(frozen=True)
class Huge:
    """A file of which only the beginning is kept; zeros follow."""

    front: bytes
    size: int

    def part(self, start: int, end: int) -> bytes:
        """Some of its bytes."""
        end = min(end, self.size)
        found = self.front[start:end]
        return found + bytes(end - start - len(found))


@dataclasses.dataclass
class Repo:
    """One repository.

    Attributes:
        files: Name to content. A name with a slash lies in a folder of it.
        gated: Files need a token that is in `readers`.
        private: Everything does.
        readers: Tokens.
        commit: Its one commit.
        revisions: Names of that commit.
        facts: What its facts say otherwise.
    """

    files: Mapping[str, bytes | Huge]
    gated: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    revisions: tuple[str, ...] = ("main",)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path, **arguments: Any) -> Repo:
        """A folder's files; of safetensors files only the header is kept."""
        files: dict[str, bytes | Huge] = {}
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                length = file.read(8)
                front = int.from_bytes(length, "little") if path.suffix == ".safetensors" else -1
                files[path.name] = Huge(length + file.read(front), path.stat().st_size)
        return cls(files, **arguments)


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked, and how many bytes of a body were sent for it."""

    method: str
    path: str
    range: str
    token: str
    status: int
    sent: int


@dataclasses.dataclass
class Faults:
    """How a server misbehaves.

    Attributes:
        statuses: Answers of the next requests for parts of files, instead of them.
        facts_statuses: The same for requests of a repository's facts.
        headers: What these answers carry.
        facts: What is sent instead of a repository's facts.
        ranges: What becomes of a range: `kept`, `ignored`, `shifted`, `unnamed` (no Content-Range), `longer`, `shorter`
            (than the body's promised length), `cut` (the connection breaks off), `packed` or `resized`.
        delay: Seconds before an answer.
        slow: A part's bytes come one by one, with as many seconds between.
        elsewhere: Where large files are, as the endpoint of another server.
    """

    statuses: list[int] = dataclasses.field(default_factory=list)
    facts_statuses: list[int] = dataclasses.field(default_factory=list)
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: bytes = b""
    ranges: str = "kept"
    delay: float = 0
    slow: float = 0
    elsewhere: str = ""


class Server:
    """`with Server({"owner/name": Repo(…)}) as hub`: `hub.endpoint` answers until the block ends.

    Attributes:
        repositories: Name to repository.
        faults: What goes wrong; may be changed at any time.
        most_at_once: The most requests that were answered at one time.
    """

    def __init__(self, repositories: Mapping[str, Repo], faults: Faults | None = None) -> None:
        self.repositories = dict(repositories)
        self.faults = faults or Faults()
        self._requests: list[Request] = []
        self.most_at_once = 0
        self.at_once = 0
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            hub = server

        self._http = _Listening(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    @property
    def requests(self) -> list[Request]:
        """What was answered, in order, once nothing is being answered any more."""
        for _ in range(200):
            with self.lock:
                if not self.at_once:
                    return list(self._requests)
            time.sleep(0.01)
        raise AssertionError("still answering")

    @property
    def sent(self) -> int:
        """Bytes of bodies that were sent."""
        return sum(request.sent for request in self.requests)

    def of(self, *words: str) -> list[Request]:
        """The requests whose path has any of the words."""
        return [request for request in self.requests if any(word in request.path for word in words)]

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Listening(http.server.ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # who asked has gone
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        hub = self.hub
        self.status = self.sent = 0
        with hub.lock:
            hub.at_once += 1
            hub.most_at_once = max(hub.most_at_once, hub.at_once)
        time.sleep(hub.faults.delay)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            self._route(urllib.parse.urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with hub.lock:
            hub.at_once -= 1
            hub._requests.append(
                Request(self.command, self.path, self.headers.get("Range", ""), token, self.status, self.sent)
            )

    def _route(self, path: str) -> None:
        facts = re.fullmatch(r"/api/models/(.+?)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)
        found = facts or file
        name, revision, *rest = found.groups() if found else ("", "")
        repo = self.hub.repositories.get(name)
        allowed = repo and self.headers.get("Authorization", "").removeprefix("Bearer ") in repo.readers
        logged_in = "Authorization" in self.headers
        if repo is None or (repo.private and not allowed):
            return self._fail(404 if logged_in else 401, "RepoNotFound")
        statuses = self.hub.faults.facts_statuses if facts else self.hub.faults.statuses
        with self.hub.lock:
            status = statuses.pop(0) if statuses and self.command == "GET" else 0
        if status:
            return self._fail(status, "", self.hub.faults.headers)
        if urllib.parse.unquote(revision or "main") not in (*repo.revisions, repo.commit):
            return self._fail(404, "RevisionNotFound")
        if facts:
            return self._facts(name, repo)
        if repo.gated and not allowed:
            return self._fail(403 if logged_in else 401, "GatedRepo")
        content = repo.files.get(urllib.parse.unquote(rest[0]))
        if content is None:
            return self._fail(404, "EntryNotFound")
        if self.hub.faults.elsewhere and not rest[0].endswith(".json"):
            return self._send(302, {"Location": self.hub.faults.elsewhere + self.path})
        return self._file(Huge(content, len(content)) if isinstance(content, bytes) else content, repo.commit)

    def _facts(self, name: str, repo: Repo) -> None:
        siblings = [
            {"rfilename": file, "size": content.size if isinstance(content, Huge) else len(content)}
            for file, content in repo.files.items()
        ]
        if "blobs=true" not in self.path:
            siblings = [{"rfilename": entry["rfilename"]} for entry in siblings]
        facts = {"id": name, "sha": repo.commit, "gated": repo.gated, "private": repo.private, "siblings": siblings}
        self._send(
            200,
            {"Content-Type": "application/json"},
            self.hub.faults.facts or json.dumps(facts | dict(repo.facts)).encode(),
        )

    def _file(self, content: Huge, commit: str) -> None:
        etag = hashlib.sha256(content.front + content.size.to_bytes(8, "little")).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        kind = self.hub.faults.ranges
        if asked is None or kind == "ignored":
            return self._send(200, headers, content)
        start, end = int(asked[1]), min(int(asked[2]) + 1, content.size)
        if start >= content.size:
            return self._send(416, {"Content-Range": f"bytes */{content.size}"})
        if kind == "shifted":
            start, end = start + 1, end + 1
        size = content.size + (kind == "resized")
        if kind != "unnamed":
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if kind == "packed":
            headers["Content-Encoding"] = "gzip"
        body = content.part(start, end)
        if kind == "longer":
            body += b"more"
        if kind == "shorter":
            body = body[:-1]
        return self._send(206, headers, body, cut=kind == "cut")

    def _fail(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        # The Hub's own pages of errors are long; nobody needs them.
        self._send(status, {**({"X-Error-Code": code} if code else {}), **(headers or {})}, b"{}" * 1000)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes | Huge = b"", *, cut: bool = False) -> None:
        self.status = status
        content = Huge(body, len(body)) if isinstance(body, bytes) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(content.size))
        self.end_headers()
        if self.command == "HEAD":
            return
        step = 1 if self.hub.faults.slow and status == 206 else CHUNK
        end = content.size // 2 if cut else content.size
        for start in range(0, end, step):
            self.sent += self.wfile.write(content.part(start, min(start + step, end)))
            time.sleep(self.hub.faults.slow if step == 1 else 0)
        if cut:
            self.close_connection = True


@contextlib.contextmanager
def connected(endpoint: str, cache: Path, token: str | None = None) -> Iterator[None]:
    """huggingface_hub asks this endpoint, keeps its cache there, and knows no other token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # else it asks for /api/agent-harnesses once a day
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.delenv("HF_TOKEN", raising=False)
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        yield


class Hostile:
    """A server that writes to the socket itself: `with Hostile({"config.json": answer}) as server`.

    Args:
        answers: By a part of the path that is asked for, what is done with the open connection. The first that fits is
            taken; what fits none gets 404.

    Attributes:
        asked: The paths that were asked for, in order.
        tokens: The tokens that came along.
    """

    def __init__(self, answers: Mapping[str, Callable[[socket.socket], None]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Hostile:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(CHUNK)
                if not received:
                    return
                request += received
            path = request.split(b" ", 2)[1].decode("latin-1")
            self.asked.append(path)
            self.tokens += re.findall(r"(?i)authorization: Bearer (\S+)", request.decode("latin-1"))
            for word, answer in self.answers.items():
                if word in path:
                    answer(connection)
                    return
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def answer(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None, **more: str) -> bytes:
    """The bytes of an answer; `_` in the name of a keyword stands for `-`."""
    lines = {"Content-Length": str(len(body)), "Connection": "close"} | dict(headers or {})
    lines |= {name.replace("_", "-"): value for name, value in more.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Any\r\n{head}\r\n".encode("latin-1") + body


def sends(*parts: bytes, every: float = 0, forever: bytes = b"") -> Callable[[socket.socket], None]:
    """Sends these bytes, and then the last ones for ever, with so many seconds between."""

    def act(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        while forever:
            connection.sendall(forever)
            time.sleep(every)

    return act
