"""A server, mirror or proxy that means harm: nothing is written, nothing hangs, no token leaves, and each says what to do."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files import hub_requests
from lorascope.sources.files.hub import open_repository
from lorascope.sources.files.redirects import redirect_fault
from tests.helpers.hub_server import Hostile, Repo, Server, answer, connected, sends
from tests.helpers.samples import TINY_LLAMA, fails

NAME = "someone/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = json.dumps(TINY_LLAMA).encode()
SIBLINGS = [{"rfilename": "config.json", "size": len(CONFIG)}, {"rfilename": "model.safetensors", "size": 10**6}]
FACTS = json.dumps({"sha": COMMIT, "siblings": SIBLINGS}).encode()
Act = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_requests, "_PAUSES", (0.01,))
    monkeypatch.setattr(hub_requests, "_PATIENCE", 0)
    monkeypatch.setattr(hub_requests, "_ANSWERING", 1.0)
    monkeypatch.setattr(hub_requests, "_BODY", 1)
    monkeypatch.setattr(hub_requests, "_DEADLINE", 1)


@pytest.fixture
def nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the home, the cache and the working folder, and is as empty afterwards as before."""
    root = tmp_path / "a" / "b" / "c"
    root.mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    before = sorted(tmp_path.rglob("*"))
    yield root
    assert sorted(tmp_path.rglob("*")) == before


STATUS = b"HTTP/1.1 200 OK\r\n"
# What is done to whoever asks for something, and a word of what is said of it.
ANSWERS: dict[str, tuple[Act, str]] = {
    "headers that drip": (sends(STATUS + b"X-Drip: ", forever=b"a", every=0.01), "not begun to answer within"),
    "a status line that drips": (sends(forever=b"H", every=0.01), ""),
    "100 Continue for ever": (sends(forever=b"HTTP/1.1 100 Continue\r\n\r\n"), "not begun to answer within"),
    "103 Early Hints for ever": (
        sends(forever=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", every=0.001),
        "not begun to answer within",
    ),
    "headers for ever": (sends(STATUS, forever=b"X-A: b\r\n"), ""),
    "one header for ever": (sends(STATUS + b"X-A: ", forever=b"a" * 1000), ""),
    "a body that drips": (sends(STATUS + b"Content-Length: 99\r\n\r\n", forever=b" ", every=0.03), "seconds"),
    "a body without an end": (sends(STATUS + b"\r\n", forever=b" " * 2**16), "more than the"),
    "chunks without an end": (
        sends(STATUS + b"Transfer-Encoding: chunked\r\n\r\n", forever=b"400\r\n" + b" " * 1024 + b"\r\n"),
        "",  # more than the bytes, or the seconds
    ),
    "one chunk without an end": (
        sends(STATUS + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", forever=b" " * 2**16),
        "more than the",
    ),
    "extensions of a chunk that drip": (
        sends(STATUS + b"Transfer-Encoding: chunked\r\n\r\n1;", forever=b"a", every=0.03),
        "",
    ),
    "nothing": (sends(), ""),
    "less than promised": (sends(STATUS + b"Content-Length: 99\r\n\r\nabc"), "breaks off"),
    "a negative length": (sends(STATUS + b"Content-Length: -5\r\n\r\nabc"), ""),
    "two lengths": (sends(STATUS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), ""),
    "packed": (sends(answer(gzip.compress(b" " * 10**6), Content_Encoding="gzip")), "though told not to"),
    "a packed bomb": (
        sends(answer(gzip.compress(gzip.compress(bytes(10**8))), Content_Encoding="gzip, gzip")),
        "though told not to",
    ),
    "another protocol": (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), ""),
    "a redirection without an address": (sends(answer(status=302)), "sends a request on to"),
    "a redirection to itself": (sends(answer(status=302, Location="?again")), "sends requests on more than 8 times"),
    "redirections to a file": (sends(answer(status=302, Location="file:///etc/passwd")), "not a web address"),
    "redirections to another scheme": (sends(answer(status=301, Location="gopher://x/")), "not a web address"),
    "redirections with a name": (sends(answer(status=307, Location="https://a:b@huggingface.co/")), "user's name"),
    "redirections to the metadata": (
        sends(answer(status=308, Location="http://169.254.169.254/latest/meta-data/")),
        "another host, and not encrypted",
    ),
    "redirections to the metadata, encrypted": (
        sends(answer(status=302, Location="https://169.254.169.254/latest/")),
        "link-local",
    ),
    "redirections to the metadata as a number": (
        sends(answer(status=302, Location="https://2852039166/latest/")),
        "link-local",
    ),
    "redirections to the metadata in IPv6": (
        sends(answer(status=302, Location="https://[::ffff:169.254.169.254]/")),
        "link-local",
    ),
    "redirections to nothing that is one": (sends(answer(status=302, Location="http://[")), "not an address"),
    "redirections with controls": (sends(answer(status=302, Location="https://x/\x7f\x9b")), ""),
}


# The error that ends a request may arrive while a generator is closed; Python reports it there, and it is raised again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("place", ["facts", "config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_whoever_answers_badly(kind: str, place: str, nothing_written: Path) -> None:
    act, said = ANSWERS[kind]
    good: dict[str, Act] = {"/api/models/": sends(answer(FACTS)), "config.json": sends(answer(CONFIG))}
    server = Hostile(good | {"/api/models/" if place == "facts" else place: act})
    # A part is refused by its status before its body is looked at.
    parts = [said] if said and (place != "model.safetensors" or "redirection" in kind) else []
    with server, connected(server.endpoint, nothing_written / "cache", "hf_mine"), fails("→", *parts) as caught:
        open_repository(NAME).read([Span(place, 0, 50)])
    assert len(str(caught.value)) < 900
    assert len(server.asked) < 25


def test_the_answers_are_counted() -> None:
    assert len(ANSWERS) == 29


EVIL_ETAGS = [
    "../../x",
    "/tmp/x",
    "../" * 9 + "tmp/x",
    "a/b",
    "..",
    "",
    "x" * 300,
    "W/..",
    '"../../x"',
    "\\..\\x",
    "%2e%2e/x",
]


@pytest.mark.parametrize("etag", EVIL_ETAGS)
@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash", "Content-Disposition"])
def test_no_header_becomes_a_path(header: str, etag: str, nothing_written: Path) -> None:
    answers: dict[str, Act] = {
        "/api/models/": sends(answer(FACTS)),
        "config.json": sends(answer(CONFIG, headers={"ETag": f'"{COMMIT}"', "X-Linked-Size": "5", header: etag})),
    }
    with Hostile(answers) as server, connected(server.endpoint, nothing_written / "cache"):
        if header == "X-Repo-Commit" and etag:
            with fails("the server answers of commit ", f"not of {COMMIT}"):
                open_repository(NAME).read([Span("config.json", 0, 9)])
        else:
            assert open_repository(NAME).read([Span("config.json", 0, 10**6)]) == [CONFIG]
        assert not [path for path in server.asked if "tmp" in path or ".." in path]


def test_a_zero_byte_in_an_etag(nothing_written: Path) -> None:
    answers = {"/api/models/": sends(answer(FACTS)), "config.json": sends(answer(CONFIG, ETag='"a\0b"'))}
    with Hostile(answers) as server, connected(server.endpoint, nothing_written / "cache"), fails(NAME, "→"):
        open_repository(NAME).read([Span("config.json", 0, 9)])


@pytest.mark.parametrize("read", ["auto", "config"])
def test_neither_route_writes_anything(read: str, nothing_written: Path) -> None:
    with (
        Server({NAME: Repo({"config.json": CONFIG})}) as server,
        connected(server.endpoint, nothing_written / "cache"),
    ):
        assert inspect(NAME, read=read).architecture == "LlamaForCausalLM"  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, len(CONFIG) - 1, len(CONFIG) + 1, 10**9, 10**30, None, -1, "5", 1.5, True])
def test_sizes_that_are_not_so(size: object, nothing_written: Path) -> None:
    facts = json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": size}]}).encode()
    answers = {"/api/models/": sends(answer(facts)), "config.json": sends(answer(CONFIG))}
    with Hostile(answers) as server, connected(server.endpoint, nothing_written / "cache"):
        if type(size) is not int or size < 0:  # not told, so that what comes is taken
            assert inspect(NAME, read="config").architecture == "LlamaForCausalLM"
        else:
            with fails("→"):
                inspect(NAME, read="config")


@pytest.mark.parametrize("read", ["auto", "config", "headers"])
def test_a_configuration_without_an_end_fills_nothing(read: str, nothing_written: Path) -> None:
    endless = sends(STATUS + b"\r\n", forever=b" " * 2**16)
    answers = {"/api/models/": sends(answer(FACTS)), "config.json": endless}
    with Hostile(answers) as server, connected(server.endpoint, nothing_written / "cache"), fails("→"):
        inspect(NAME, read=read)  # type: ignore[arg-type]


def test_a_million_files(nothing_written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_requests, "_DEADLINE", 60)
    monkeypatch.setattr(hub_requests, "_BODY", 60)
    facts = b'{"sha": "%s", "siblings": [%s]}' % (COMMIT.encode(), b",".join([b'{"rfilename":"a"}'] * 1_000_001))
    with (
        Hostile({"/api/models/": sends(answer(facts))}) as server,
        connected(server.endpoint, nothing_written / "cache"),
        fails("holds more than 2000000 values"),
    ):
        open_repository(NAME)


def test_the_token_stays_where_it_belongs(nothing_written: Path) -> None:
    there = Hostile({"": sends(answer(b"x"))})
    moved = sends(answer(status=302, Location=there.endpoint + "/elsewhere", Set_Cookie="a=b"))
    answers = {"/api/models/": sends(answer(FACTS)), "": moved}
    with Hostile(answers) as server, there, connected(server.endpoint, nothing_written / "cache", "hf_mine"):
        for name in ("config.json", "model.safetensors"):
            with pytest.raises(LorascopeError):
                open_repository(NAME).read([Span(name, 0, 9)])
    assert len(server.tokens) == 4
    assert (len(there.asked), there.tokens) == (2, [])


@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        ("https://huggingface.co/a", "https://huggingface.co/b", ""),
        ("https://huggingface.co/a", "https://93.184.216.34/b", ""),
        ("https://huggingface.co/a", "http://huggingface.co/b", "is not encrypted any more"),
        ("https://huggingface.co/a", "http://93.184.216.34/b", "is another host, and not encrypted"),
        ("https://huggingface.co/a", "https://127.0.0.1/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://127.1/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://localhost/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://[::1]/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://10.0.0.1/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://172.16.5.4/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://192.168.1.1/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://100.64.0.1/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://[fd00::1]/b", "lies in a private network"),
        ("https://huggingface.co/a", "https://[fe80::1]/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://[fe80::1%25eth0]/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://169.254.169.254/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://0xa9fea9fe/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://[64:ff9b::a9fe:a9fe]/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://[2002:a9fe:a9fe::]/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "https://0.0.0.0/b", "lies at a link-local address"),
        ("https://huggingface.co/a", "ftp://huggingface.co/b", "is not a web address"),
        ("https://huggingface.co/a", "https:///b", "is not a web address"),
        ("https://huggingface.co/a", "https://x:99999/b", "is not an address"),
        ("https://10.0.0.1/a", "https://10.0.0.2/b", ""),
        ("http://127.0.0.1:80/a", "http://127.0.0.1:81/b", ""),
        ("http://127.0.0.1/a", "https://169.254.169.254/b", "lies at a link-local address"),
    ],
)
@pytest.mark.parametrize("proxy", [False, True])
def test_where_a_redirection_may_lead(
    source: str, target: str, fault: str, proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"} if proxy else {})
    known = {"huggingface.co": "3.5.5.5"}
    ask = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> object:
        return ask(known.get(host, host), *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert redirect_fault(source, target) == fault


def test_what_the_client_itself_would_do(tmp_path: Path) -> None:
    """Why small files are not read through it: a server's ETag becomes a path. If this fails, it has been mended."""
    outside = tmp_path / "outside"
    answers: dict[str, Act] = {
        "config.json": sends(answer(CONFIG, ETag=f'"{outside}"', X_Repo_Commit=COMMIT)),
    }
    with Hostile(answers) as server, connected(server.endpoint, tmp_path / "cache"):
        try:
            huggingface_hub.hf_hub_download(NAME, "config.json", revision=COMMIT)
        except Exception:  # whatever a mended client raises
            return
    assert outside.read_bytes() == CONFIG
