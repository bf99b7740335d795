"""A repository is asked for its facts once and then for parts at one commit; whatever goes wrong says what to do."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint.safetensors import open_checkpoint
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files import hub as hub_room
from lorascope.sources.files import hub_requests
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.hub import Repository, open_repository
from lorascope.sources.files.plain import MOST_BYTES
from tests.helpers.hub_server import Faults, Huge, Repo, Server, connected
from tests.helpers.samples import fails
from tests.helpers.sparse_checkpoints import write_checkpoint

NAME = "someone/model"
CONFIG = b'{"model_type": "llama"}'
FRONT = bytes(range(256)) * 1000
WEIGHTS = "model.safetensors"
FACTS = "/api/models/"


def repo(**arguments: object) -> Repo:
    files = {"config.json": CONFIG, WEIGHTS: Huge(FRONT, 5 * 10**9), "onnx/model.safetensors": b"elsewhere"}
    return Repo(files, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(hub_requests, "_PAUSES", (0.01, 0.02, 0.03))
    with Server({NAME: repo()}) as server, connected(server.endpoint, cache):
        yield server


def begin(found: Repository, length: int = 1000) -> bytes:
    return found.read([Span(WEIGHTS, 0, length)])[0]


# What is asked.


def test_facts_once_then_parts_at_the_commit(hub: Server) -> None:
    found = open_repository(NAME)
    commit = hub.repositories[NAME].commit
    assert (found.where, found.commit, found.names, found.notes) == (NAME, commit, {"config.json", WEIGHTS}, ())
    assert (found.size(WEIGHTS), found.size("config.json")) == (5 * 10**9, len(CONFIG))
    assert len(hub.requests) == found.requests == 1
    spans = [Span(WEIGHTS, 300, 500), Span("config.json", 0, 100), Span("config.json", 1, 4), Span(WEIGHTS, 300, 500)]
    assert found.read(spans) == [FRONT[300:500], CONFIG, CONFIG[1:4], FRONT[300:500]]
    assert [(request.method, request.path.removeprefix(f"/{NAME}/resolve/{commit}/")) for request in hub.requests] == [
        ("GET", f"{FACTS}{NAME}?blobs=true"),
        ("GET", "config.json"),
        ("GET", WEIGHTS),
    ]
    assert found.requests == 3
    assert found.transferred == hub.sent == hub.requests[0].sent + len(CONFIG) + 200
    assert not any(request.token for request in hub.requests)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"])
def test_a_revision_is_pinned(revision: str, hub: Server) -> None:
    hub.repositories[NAME] = repo(revisions=("v1.0", "refs/pr/1", "main"))
    assert begin(open_repository(NAME, revision)) == FRONT[:1000]
    asked, part = hub.requests
    assert asked.path == f"{FACTS}{NAME}/revision/{revision.replace('/', '%2F')}?blobs=true"
    assert part.path.startswith(f"/{NAME}/resolve/{hub.repositories[NAME].commit}/")


def test_a_cached_file_is_not_asked_for_again(hub: Server) -> None:
    small = b"\x08" + bytes(7) + b"{      }"
    hub.repositories[NAME] = Repo({"config.json": CONFIG, WEIGHTS: small})
    for name in hub.repositories[NAME].files:
        huggingface_hub.hf_hub_download(NAME, name, revision=hub.repositories[NAME].commit)
    before = len(hub.requests)
    found = open_repository(NAME)
    assert found.read([Span(WEIGHTS, 0, 100), Span("config.json", 0, 100)]) == [small, CONFIG]
    assert (found.size(WEIGHTS), len(hub.requests) - before, found.requests) == (16, 1, 1)


def test_parts_that_lie_near_are_one_request(hub: Server) -> None:
    found = open_repository(NAME)
    near = [Span(WEIGHTS, start, start + 16) for start in range(0, 200_000, 1000)]
    far = [Span(WEIGHTS, start * 10**9, start * 10**9 + 8) for start in (1, 2, 3, 4)]
    assert found.read([*far, *near]) == [bytes(8)] * 4 + [FRONT[span.start : span.end] for span in near]
    assert found.requests == len(hub.requests) == 1 + 1 + 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200_000), st.integers(0, 20_000)), max_size=20))
def test_joined_parts_cover_what_was_asked(asked: list[tuple[str, int, int]]) -> None:
    spans = [Span(file, start, start + length) for file, start, length in asked]
    joined = hub_room._joined(spans)
    assert sorted(map(repr, spans)) == sorted(repr(span) for inner in joined.values() for span in inner)
    for whole, inner in joined.items():
        assert all(whole.file == span.file and whole.start <= span.start <= span.end <= whole.end for span in inner)
        useless = whole.end - whole.start - sum(span.end - span.start for span in inner)
        assert useless <= hub_room._GAP * (len(inner) - 1)
    ordered = sorted(joined, key=lambda whole: (whole.file, whole.start))
    for left, right in itertools.pairwise(ordered):
        assert left.file != right.file or left.end + hub_room._GAP < right.start


def test_163_files_in_parallel(hub: Server) -> None:
    shards = [f"model-{shard:05}-of-00163.safetensors" for shard in range(1, 164)]
    files = {shard: Huge(shard.encode(), 4 * 10**9) for shard in shards}
    hub.repositories[NAME] = Repo({"config.json": CONFIG} | files)
    hub.faults.delay = 0.01
    told: list[tuple[int, int]] = []
    found = open_repository(NAME, progress=lambda done, of: told.append((done, of)))
    heads = found.read([Span(shard, 0, 100_000) for shard in shards])
    assert [head[:30].rstrip(b"\0").decode() for head in heads] == [shard[:30] for shard in shards]
    assert told == [(done, 163) for done in range(1, 164)]
    assert found.requests == len(hub.requests) == 164
    assert found.transferred == hub.sent < 0.01 * 163 * 4 * 10**9
    assert 2 <= hub.most_at_once <= 8


def test_a_file_may_end_before(hub: Server) -> None:
    hub.repositories[NAME] = Repo({WEIGHTS: b"short", "empty.safetensors": b""})
    spans = [Span(WEIGHTS, 3, 90), Span(WEIGHTS, 50, 60), Span("empty.safetensors", 0, 8), Span(WEIGHTS, 2, 2)]
    assert open_repository(NAME).read(spans) == [b"rt", b"", b"", b""]
    assert len(hub.requests) == 2


def test_sizes_that_the_facts_do_not_tell(hub: Server) -> None:
    names = [{"rfilename": name} for name in ("config.json", WEIGHTS, "empty.safetensors")]
    hub.repositories[NAME] = Repo(
        {"config.json": CONFIG, WEIGHTS: b"short", "empty.safetensors": b""}, facts={"siblings": names}
    )
    found = open_repository(NAME)
    spans = [Span(WEIGHTS, 3, 90), Span(WEIGHTS, 50_000, 50_060), Span("empty.safetensors", 0, 8)]
    assert found.read([*spans, Span("config.json", 0, 100)]) == [b"rt", b"", b"", CONFIG]
    assert [found.size(name) for name in (WEIGHTS, "empty.safetensors", "config.json")] == [5, 0, len(CONFIG)]


# Tokens and redirections.


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Server, cache: Path) -> None:
    hub.repositories[NAME] = repo(gated=True, readers=("hf_mine",))
    with Server({NAME: repo()}) as store, connected(hub.endpoint, cache, "hf_mine"):
        hub.faults.elsewhere = store.endpoint
        found = open_repository(NAME)
        assert found.read([Span(WEIGHTS, 5, 90), Span("config.json", 0, 100)]) == [FRONT[5:90], CONFIG]
        assert {request.token for request in hub.requests} == {"hf_mine"}
        assert [(request.token, request.range) for request in store.requests] == [("", "bytes=5-89")]
        assert found.requests == len(hub.requests) + len(store.requests) == 4
        assert found.transferred == hub.sent + store.sent


def test_redirections_without_an_end(hub: Server) -> None:
    hub.faults.elsewhere = hub.endpoint
    with fails(f"{NAME}: the server sends requests on more than 8 times", "→"):
        begin(open_repository(NAME))


@pytest.mark.parametrize("token", ["hf_sécret", "hf_se\0cret"])
def test_no_message_tells_the_token(token: str, hub: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "token").write_text(token, encoding="utf-8")
    with fails(f"{NAME}: your token holds a character that no token has", "hf auth login") as caught:
        open_repository(NAME)
    assert "cret" not in "".join(traceback.format_exception(caught.value))


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        ({"gated": True}, None, ["is gated, and you are not logged in", "Accept the license at", "hf auth login"]),
        ({"gated": True}, "hf_other", ["is gated, and your account has no access yet", "Accept the license at"]),
        ({"private": True}, None, ["no such repository, or it is private", "Check the name", "hf auth login"]),
        ({"private": True}, "hf_other", ["no such repository, or it is private", "an account that may read it"]),
    ],
    ids=["gated", "gated-other", "private", "private-other"],
)
def test_who_may_not_read(
    arguments: dict[str, bool], token: str | None, said: list[str], hub: Server, cache: Path
) -> None:
    hub.repositories[NAME] = repo(readers=("hf_mine",), **arguments)
    for span in (Span(WEIGHTS, 0, 8), Span("config.json", 0, 8)):
        with connected(hub.endpoint, cache, token), fails(f"{NAME}: ", *said):
            open_repository(NAME).read([span])
    with connected(hub.endpoint, cache, "hf_mine"):
        assert begin(open_repository(NAME)) == FRONT[:1000]


@pytest.mark.parametrize("token", [None, "hf_mine"])
def test_a_repository_that_is_not_there(token: str | None, hub: Server, cache: Path) -> None:
    with (
        connected(hub.endpoint, cache, token),
        fails("someone/else: there is no such repository, or it is private", "Check the name"),
    ):
        open_repository("someone/else")
    assert len(hub.requests) == 1


def test_a_revision_that_is_not_there(hub: Server) -> None:
    with fails(f"{NAME}: has no revision 'v9'", f"listed at https://huggingface.co/{NAME}/tree/main"):
        open_repository(NAME, "v9")


def test_files_that_are_not_there_are_not_asked_for(hub: Server) -> None:
    found = open_repository(NAME)
    asked = [Span(name, 0, 8) for name in ("a.safetensors", "../../etc/passwd", "onnx/model.safetensors", WEIGHTS)]
    with fails(f"{NAME}: 3 faults", "has no file 'a.safetensors' at its root", "'../../etc/passwd'", "'onnx/model"):
        found.read(asked)
    with fails("has no file '/etc/passwd' at its root"):
        found.size("/etc/passwd")
    assert len(hub.requests) == 1


def test_a_file_that_went_away(hub: Server) -> None:
    found = open_repository(NAME)
    hub.repositories[NAME] = Repo({"readme.md": b""})
    for name in (WEIGHTS, "config.json"):
        with fails(f"{NAME}: has no file '{name}'", "Its files are listed at"):
            found.read([Span(name, 0, 8)])


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a b", "a--b", "../a", "-a/b", "a/b.git", "a/" + "b" * 100, "http://x/y", "a\x1b[31m/b"]
)
def test_what_is_no_name(name: str, hub: Server) -> None:
    with fails("is not a Hub repository name", "org/model") as caught:
        open_repository(name)
    assert "\x1b" not in str(caught.value)
    assert not hub.requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_ENDPOINT", "http://me:secret@[x]"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        "lorascope.inspect('org/name')",
        "lorascope.sandbox.seal._install()",
        "lorascope.sources.transformers.config.transformers_library()",
        "lorascope.peft_rules.lora_config.to_peft(lorascope.AdapterConfig(target_modules=('q_proj',)))",
    ],
)
def test_an_environment_that_huggingface_hub_cannot_use(name: str, value: str, use: str) -> None:
    code = f"""
import lorascope, lorascope.sandbox.seal, lorascope.sources.transformers.config, lorascope.peft_rules.lora_config
try:
    {use}
except lorascope.LorascopeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, name: value, "HF_TOKEN": "hf_hidden"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"huggingface_hub cannot be loaded with {name}: " in done.stdout
    assert f"Correct or unset in the environment: {name}." in done.stdout
    assert "secret" not in done.stdout
    assert "hf_hidden" not in done.stdout


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with fails(f"{NAME}: Reading from the Hub needs huggingface_hub", "pip install 'lorascope[hub]'"):
        open_repository(NAME)


@pytest.mark.parametrize(
    ("status", "code", "message", "said"),
    [
        (401, "", "Invalid credentials in Authorization header", ["your token is refused", "Log in again"]),
        (401, "", "", ["there is no such repository, or it is private"]),
        (403, "", "Access to this resource is disabled.", ["access is refused (Access to this resource is disabled.)"]),
        (403, "", "", ["access is refused\n", "Use a token that may read it"]),
        (404, "", "", ["the Hub answers with status 404"]),
        (429, "", "", ["the Hub answers with status 429", "Try again later"]),
        (400, "", "no\nwords " * 99, ["the Hub answers with status 400 (no words no words", "hf download"]),
    ],
)
def test_other_refusals(status: int, code: str, message: str, said: list[str]) -> None:
    error = hub_requests.refusal(NAME, None, status, {"X-Error-Code": code, "X-Error-Message": message}, WEIGHTS)
    assert not [part for part in (NAME, *said) if part not in str(error)], error
    assert len(str(error)) < 400


# Servers and networks that fail.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(status: int, hub: Server) -> None:
    hub.faults.facts_statuses = [status, status]
    hub.faults.statuses = [status] * 3
    found = open_repository(NAME)
    assert begin(found) == FRONT[:1000]
    assert [request.status for request in hub.requests] == [status] * 2 + [200] + [status] * 3 + [206]
    assert found.requests == 7
    assert found.transferred < 2000  # no page of an error is read


@pytest.mark.parametrize("status", [429, 503])
def test_what_does_not_pass(status: int, hub: Server) -> None:
    hub.faults.facts_statuses = [status] * 9
    with fails(f"answers with status {status} (4 tries)", "try again later", f"hf download {NAME}"):
        open_repository(NAME)
    hub.faults.facts_statuses = []
    hub.faults.statuses = [status] * 99
    found = open_repository(NAME)
    with fails(f"{NAME}: ", f"answers with status {status} (4 tries)"):
        begin(found)
    assert len(hub.requests) == 4 + 1 + 4


def test_a_configuration_is_tried_again(hub: Server) -> None:
    found = open_repository(NAME)
    hub.faults.statuses = [503] * 4
    with fails(f"{NAME}: 127.0.0.1:", "answers with status 503 (4 tries)", "try again later"):
        found.read([Span("config.json", 0, 99)])
    hub.faults.statuses = [500, 502]
    assert found.read([Span("config.json", 0, 99)]) == [CONFIG]
    assert [request.status for request in hub.requests if request.method == "GET"] == [200, *[503] * 4, 500, 502, 200]
    assert found.requests == len(hub.requests) == 1 + 4 + 3


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
def test_the_server_says_how_long_to_wait(
    headers: dict[str, str], hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_repository(NAME)
    hub.faults = Faults(statuses=[429], headers=headers)
    waited: list[float | None] = []
    monkeypatch.setattr(hub_requests, "_PAUSES", [0.125])
    wait = threading.Event.wait

    def note(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout in (0.125, 1):
            waited.append(timeout)
            return event.is_set()
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", note)
    assert begin(found) == FRONT[:1000]
    assert waited == [1]


def test_the_server_says_to_wait_for_long(hub: Server) -> None:
    hub.faults = Faults(facts_statuses=[429], headers={"Retry-After": "300"})
    with fails("answers with status 429, and asks to wait 300 seconds (1 try)", "try again later"):
        open_repository(NAME)


def test_one_failure_ends_the_others(hub: Server) -> None:
    shards = [f"model-{shard:05}-of-00100.safetensors" for shard in range(100)]
    hub.repositories[NAME] = Repo(dict.fromkeys(shards, Huge(b"", 10**9)))
    found = open_repository(NAME)
    hub.faults.statuses = [404] * 100
    with fails("the Hub answers with status 404"):
        found.read([Span(shard, 0, 8) for shard in shards])
    assert len(hub.requests) < 40


def test_no_answer_in_time(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.faults.delay = 0.3
    with fails(f"{NAME}: ", "does not answer within 0.1 seconds (4 tries)", "Check the network"):
        open_repository(NAME)
    hub.faults.delay = 0
    found = open_repository(NAME)
    hub.faults.delay = 0.3
    with fails("does not answer within 0.1 seconds (4 tries)"):
        begin(found)


def test_an_answer_that_drips(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_requests, "_DEADLINE", 0.2)
    hub.faults.slow = 0.02
    found = open_repository(NAME)
    with fails("bytes in 0.2 seconds"):
        begin(found, 400)


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def test_nobody_listens(cache: Path) -> None:
    with (
        connected(f"http://127.0.0.1:{closed_port()}", cache),
        fails(f"{NAME}: 127.0.0.1:", "cannot be reached: ConnectError", "Check the network and HF_ENDPOINT"),
    ):
        open_repository(NAME)


@pytest.mark.parametrize("endpoint", ["nowhere", "ftp://127.0.0.1", "http://", "http://[", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_none(endpoint: str, cache: Path) -> None:
    with connected(endpoint, cache), fails(NAME, "cannot be reached", "HF_ENDPOINT"):
        open_repository(NAME)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ("ignored", f"the server answers with the whole of {WEIGHTS} (status 200)"),
        ("shifted", f"answers bytes 0-999 of {WEIGHTS} with 'bytes 1-1000/5000000000'"),
        ("unnamed", f"answers bytes 0-999 of {WEIGHTS} with ''"),
        ("longer", "sends more than the 1000 bytes that were asked for"),
        ("shorter", f"sends 999 bytes of {WEIGHTS} as 'bytes 0-999/5000000000'"),
        ("packed", f"packs the bytes of {WEIGHTS} though told not to"),
        ("resized", f"{WEIGHTS} has 5000000001 bytes, and 5000000000 by the repository's facts"),
        ("cut", "breaks off: RemoteProtocolError"),
    ],
)
def test_a_server_that_keeps_no_ranges(ranges: str, said: str, hub: Server) -> None:
    found = open_repository(NAME)
    before = found.transferred
    hub.faults.ranges = ranges
    with fails(f"{NAME}: ", said, "→"):
        begin(found)
    assert found.transferred - before < 4 * 1010
    # What a socket's buffers take, of five gigabytes.
    assert hub.sent < 20 * 2**20


def test_a_repository_can_be_read_after_a_failure(hub: Server) -> None:
    found = open_repository(NAME)
    hub.faults.ranges = "cut"
    with fails("breaks off", "(4 tries)"):
        begin(found)
    hub.faults = Faults(statuses=[503])
    assert begin(found) == FRONT[:1000]


# Hostile repositories.


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"sha": None}, "sha is None"),
        ({"sha": "main/../../.."}, "sha is 'main/../../..'"),
        ({"sha": "\x1b[31m" + "0" * 500}, "sha is '\\x1b[31m000"),
        ({"siblings": 5}, "tell no commit and files"),
        ({"siblings": None}, "tell no commit and files"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else None,
)
def test_facts_that_tell_nothing(facts: dict[str, object], said: str, hub: Server) -> None:
    hub.repositories[NAME] = repo(facts=facts)
    with fails(f"{NAME}: the Hub's facts tell no commit and files", said, "HF_ENDPOINT") as caught:
        open_repository(NAME)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>Log in to our network</html>", "is not JSON"),
        (b"[]", "is [], not an object"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" + b"1," * 3_000_000 + b"1]", "holds more than"),
        (bytes(33 * 2**20), "sends more than the 33554432 bytes that were asked for"),
    ],
    ids=["page", "list", "bytes", "deep", "long", "longer"],
)
def test_what_is_no_hub(answer: bytes, said: str, hub: Server) -> None:
    hub.faults.facts = answer
    with fails(said, "HF_ENDPOINT"):
        open_repository(NAME)


def test_names_that_lead_elsewhere_are_no_files(hub: Server) -> None:
    names = ["..", ".", "", "../x", "/etc/passwd", "a\\b", "a\nb", "\x1b[31m", 5, None, "sub/x.json"]
    strange = ["%2e%2e", "a b?.json", "#.safetensors", "é.gguf"]
    siblings = [{"rfilename": name, "size": -1} for name in [*names, *strange, "config.json"]]
    files = dict.fromkeys([*strange, "config.json"], CONFIG)
    hub.repositories[NAME] = Repo(files, facts={"siblings": [*siblings, 5, None, {}]})
    found = open_repository(NAME)
    assert found.names == {*strange, "config.json"}
    assert found.read([Span(name, 0, 99) for name in files]) == [CONFIG] * 5
    assert all(request.path.startswith((FACTS, f"/{NAME}/resolve/{found.commit}/")) for request in hub.requests)
    assert {request.status for request in hub.requests} == {200, 206}


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_NAMES = st.sampled_from(["config.json", "..", "a/b", "/", "a", "\\", "\0"]) | st.text()


@given(
    st.just("0" * 40) | _ANYTHING,
    st.lists(st.fixed_dictionaries({"rfilename": _NAMES | _ANYTHING}, optional={"size": _ANYTHING}) | _ANYTHING)
    | _ANYTHING,
)
def test_any_facts(sha: object, siblings: object) -> None:
    try:
        commit, folders = hub_room._root_files(NAME, {"sha": sha, "siblings": siblings})
    except LorascopeError as error:
        assert str(error).isprintable() or "\n  → " in str(error)
        assert sha != "0" * 40 or not isinstance(siblings, list)
        return
    assert commit == "0" * 40
    assert all(folder.isidentifier() or folder == "" or folder.isdecimal() for folder in folders)
    for name, size in ((name, size) for files in folders.values() for name, size in files.items()):
        assert not set(name) & set("/\\\0\x1b\n") and name not in ("", ".", "..")
        assert size is None or size >= 0


def test_a_configuration_as_large_as_weights(hub: Server) -> None:
    hub.repositories[NAME] = Repo({"config.json": Huge(b"{", 10**12)})
    with fails(f"config.json has 1000000000000 bytes, more than the {MOST_BYTES} that are read", "or its weights?"):
        open_repository(NAME).read([Span("config.json", 0, 10)])
    assert len(hub.requests) == 1


def test_more_bytes_than_headers_need(hub: Server) -> None:
    found = open_repository(NAME)
    with fails(f"{10**9} bytes in 1 parts are more than the {512 * 2**20}", "Are these a model's weights?"):
        found.read([Span(WEIGHTS, 0, 10**9)])
    assert len(hub.requests) == 1


# The cache, where the Hub is not asked or does not answer.


@pytest.fixture
def fetched(hub: Server) -> Server:
    hub.repositories[NAME] = Repo({"config.json": CONFIG, WEIGHTS: FRONT})
    for name in hub.repositories[NAME].files:
        huggingface_hub.hf_hub_download(NAME, name)
    return hub


@pytest.mark.parametrize("revision", [None, "main", "0123456789abcdef0123456789abcdef01234567"])
def test_offline_is_the_cache(revision: str | None, fetched: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(fetched.requests)
    found = open_repository(NAME, revision)
    assert (found.where, found.commit, found.names) == (
        NAME,
        "01234567" + "89abcdef01234567" * 2,
        {"config.json", WEIGHTS},
    )
    assert found.notes == ("HF_HUB_OFFLINE is set: the cache is read, at commit 0123456",)
    assert found.read([Span(WEIGHTS, 5, 10), Span("config.json", 0, 99)]) == [FRONT[5:10], CONFIG]
    assert (found.size(WEIGHTS), found.requests, found.transferred) == (len(FRONT), 0, 0)
    with fails("has no file 'model-2.safetensors' at its root", "HF_HUB_OFFLINE is set", f"hf download {NAME}"):
        found.read([Span("model-2.safetensors", 0, 1)])
    assert len(fetched.requests) == before


@pytest.mark.parametrize("revision", [None, "v9", "../../..", "a\0b"])
def test_offline_and_not_in_the_cache(
    revision: str | None, fetched: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if revision is None:
        shutil.rmtree(cache)
    with fails(
        NAME, "HF_HUB_OFFLINE is set, and it is not in the cache", "Unset HF_HUB_OFFLINE", f"hf download {NAME}"
    ):
        open_repository(NAME, revision)


def test_unreachable_is_the_cache_and_says_so(fetched: Server, cache: Path) -> None:
    with connected(f"http://127.0.0.1:{closed_port()}", cache):
        found = open_repository(NAME)
        assert begin(found) == FRONT[:1000]
    (note,) = found.notes
    assert "cannot be reached: ConnectError" in note
    assert note.endswith("the cache is read, at commit 0123456")


def test_a_hub_that_is_down_is_the_cache_and_says_so(fetched: Server) -> None:
    fetched.faults.facts_statuses = [503] * 4
    (note,) = open_repository(NAME).notes
    assert "answers with status 503 (4 tries): the cache is read, at commit 0123456" in note


def test_a_refusal_is_not_the_cache(fetched: Server) -> None:
    fetched.repositories.clear()
    with fails("there is no such repository, or it is private"):
        open_repository(NAME)


# Whole checkpoints by their headers.


@pytest.mark.parametrize(
    ("shards", "layers", "requests"),
    # Facts, then config.json and the index, then one request a file, two for a long header.
    [(1, 8, 1 + 1 + 1), (2, 8, 1 + 2 + 2), (1, 300, 1 + 1 + 2), (163, 163, 1 + 2 + 163)],
)
def test_a_checkpoint_costs_under_a_percent(
    shards: int, layers: int, requests: int, hub: Server, tmp_path: Path
) -> None:
    shapes = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}
    tensors = {
        f"model.layers.{layer}.{name}.weight": ("BF16", shape)
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    folder = write_checkpoint(tmp_path / "model", tensors, shards, {"model_type": "llama"})
    hub.repositories[NAME] = Repo.of_folder(folder)
    found = open_repository(NAME)
    checkpoint = open_checkpoint(found)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()} == tensors
    assert checkpoint.tensors == open_checkpoint(open_folder(folder)).tensors
    assert found.requests == len(hub.requests) == requests
    assert found.transferred == hub.sent < 0.001 * sum(2 * math.prod(shape) for _, shape in tensors.values())


def test_the_clients_own_reading_agrees(hub: Server, tmp_path: Path) -> None:
    tensors = {f"{letter}.weight": ("F16", (size, 3)) for size, letter in enumerate("abcdefgh", 1)}
    hub.repositories[NAME] = Repo.of_folder(write_checkpoint(tmp_path / "model", tensors, 2, {"model_type": "llama"}))
    found = open_checkpoint(open_repository(NAME)).tensors
    theirs = huggingface_hub.HfApi(endpoint=hub.endpoint).get_safetensors_metadata(NAME)
    described = {name: info for file in theirs.files_metadata.values() for name, info in file.tensors.items()}
    assert theirs.weight_map == {name: tensor.span.file for name, tensor in found.items()}
    assert len(described) == 8
    for name, info in described.items():
        assert (info.dtype, tuple(info.shape)) == (found[name].dtype, found[name].shape)


@pytest.mark.parametrize(
    "place", ["/etc/passwd", "../../../../etc/passwd", "https://elsewhere/x.safetensors", "sub/x.safetensors"]
)
def test_an_index_leads_nowhere_else(place: str, hub: Server) -> None:
    index = json.dumps({"weight_map": {"a.weight": place}}).encode()
    hub.repositories[NAME] = Repo(
        {"config.json": CONFIG, "model.safetensors.index.json": index, "sub/x.safetensors": b""}
    )
    found = open_repository(NAME)
    with fails(NAME, "→"):
        open_checkpoint(found)
    assert {request.path.rpartition("/")[2] for request in hub.requests} == {
        "model?blobs=true",
        "config.json",
        "model.safetensors.index.json",
    }


# All of it in a process of its own, as huggingface_hub's settings are read when it is imported.


def test_settings_of_the_environment(tmp_path: Path) -> None:
    code = f"""
import json, sys
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.hub import open_repository
found = open_repository({NAME!r})
part = found.read([Span({WEIGHTS!r}, 256, 300), Span("config.json", 0, 99)])
heavy = sorted({{"torch", "transformers", "peft", "numpy", "safetensors"}} & sys.modules.keys())
print(json.dumps([found.requests, part[0].hex(), part[1].decode(), heavy]))
"""
    with Server({NAME: repo(private=True, readers=("hf_mine",))}) as server:
        environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_mine"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [3, FRONT[256:300].hex(), CONFIG.decode(), []]
        assert {request.token for request in server.requests} == {"hf_mine"}
        assert len(server.requests) == 3  # nothing else is asked, such as huggingface_hub's list of agents
        assert list(tmp_path.iterdir()) == []
