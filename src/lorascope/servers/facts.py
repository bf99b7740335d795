"""What is recorded of servers' releases: their rules, their models, and the modules that took adapters when they ran.

`tools/build_server_facts.py` reads the releases' own code for `data/servers`; `tests/data/record_vllm.py` ran one
release of vLLM for the table of modules.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError

SERVERS = ("vllm", "sglang")
_TITLES = {"vllm": "vLLM", "sglang": "SGLang"}
# Said of an adapter of which only what decides its weights is known.
UNKNOWN_EXTRAS = "which other keys the adapter_config.json will have, init_lora_weights among them, is not known"
_ASKED = re.compile(r"(?P<server>[a-z]+)(?:==(?P<release>[0-9]{1,6}(?:\.(?:post)?[0-9]{1,6}){0,5}))?")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of one release of a server.

    Attributes:
        server: `vllm` or `sglang`.
        release: The release whose rules these are.
        asked: The release that was asked for.
        rules: What its code says of adapters in general.
        models: Architecture to what its class says of them.
        newest_models: The same of the newest release.
        backend: Architectures that it runs with transformers' own code.
        modules: Architecture to the modules that took an adapter when the code ran; of the release `ran` alone.
        ran: The release of the table of modules.
    """

    server: str
    release: str
    asked: str
    rules: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    newest_models: Mapping[str, Mapping[str, Any]]
    backend: frozenset[str]
    modules: Mapping[str, Mapping[str, Any]]
    ran: str

    @property
    def title(self) -> str:
        """The server with its release, as people write it: `vLLM 0.33.0`."""
        return f"{_TITLES[self.server]} {self.release}"


@functools.lru_cache(maxsize=16)
def server_facts(server: str) -> Facts:
    """What is recorded of a server: `vllm`, or of a release of it: `vllm==0.11.2`.

    A release that is not recorded has the rules of the nearest older one.

    Raises:
        LorascopeError: There is no such server, or no release that old is recorded.
    """
    asked = _ASKED.fullmatch(server.strip().lower())
    if asked is None or asked["server"] not in SERVERS:
        raise LorascopeError(
            f"{server!r} is no server that is known", hint="Ask for vllm or sglang, or a release of them: vllm==0.33.0"
        )
    name = asked["server"]
    content = _content(name)
    releases: list[str] = content["releases"]
    wanted = asked["release"] or releases[0]
    older = [release for release in releases if _key(release) <= _key(wanted)]
    if not older:
        raise LorascopeError(
            f"{_TITLES[name]} {wanted} is older than all that is recorded",
            hint=f"{_TITLES[name]} {releases[-1]} to {releases[0]} are known.",
        )
    state = content["newest"]
    for release in releases[1 : releases.index(older[0]) + 1]:
        state = {**state, **_changed(state, content["older"][release])}
    recorded: dict[str, Any] = _content("vllm_modules") if name == "vllm" else {"models": {}, "release": ""}
    return Facts(
        name,
        older[0],
        wanted,
        state["rules"],
        state["models"],
        content["newest"]["models"],
        frozenset(state.get("transformers_backend") or ()),
        recorded["models"],
        recorded["release"],
    )


def _changed(newer: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a release's facts that differ from the next newer one's."""
    found: dict[str, Any] = {}
    for part, change in changes.items():
        if isinstance(change, dict) and isinstance(newer[part], dict):
            merged = {**newer[part], **change}
            found[part] = {key: value for key, value in merged.items() if value is not None}
        else:
            found[part] = change
    return found


@functools.lru_cache(maxsize=4)
def _content(name: str) -> dict[str, Any]:
    text = (files("lorascope") / "data" / "servers" / f"{name}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def _key(release: str) -> tuple[int, ...]:
    """Releases in order; a post release comes after its own."""
    numbers = [int(number) for number in re.findall(r"\d+", release)]
    return (*numbers, *(0 for _ in range(3 - len(numbers))))
