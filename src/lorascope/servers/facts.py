"""Recorded facts of servers' releases: rules, models and modules.

`tools/build_server_facts.py` reads the releases' own code for `data/servers`; `tests/data/record_vllm.py` ran one
release of vLLM for the table of modules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.packaged import load_json
from lorascope.peft_rules.releases import Release, parse_release
from lorascope.servers.types import TITLES

SERVERS = ("vllm", "sglang")
# The reason for an adapter of which only what decides its weights is known.
UNKNOWN_EXTRAS = "the other keys of the adapter_config.json, such as init_lora_weights, are not known"
_SERVER = re.compile(r"(?P<server>[a-z]+)(?:==(?P<release>[0-9]{1,6}(?:\.(?:post)?[0-9]{1,6}){0,5}))?")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts of one release of a server.

    Attributes:
        server: `vllm` or `sglang`.
        release: The release whose rules these are.
        wanted: The release that was asked for.
        rules: Its rules on adapters in general.
        models: Architecture to the rules of its class.
        newest_models: The same of the newest release.
        backend: Architectures that it runs with transformers' own code.
        modules: Architecture to the modules that took an adapter when the code ran; of the release `ran` alone.
        ran: The release of the table of modules.
    """

    server: str
    release: str
    wanted: str
    rules: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    newest_models: Mapping[str, Mapping[str, Any]]
    backend: frozenset[str]
    modules: Mapping[str, Mapping[str, Any]]
    ran: str

    @property
    def title(self) -> str:
        """The server with its release, as people write it: `vLLM 0.33.0`."""
        return f"{TITLES[self.server]} {self.release}"


@functools.lru_cache(maxsize=16)
def server_facts(server: str) -> Facts:
    """The facts of a server or release: `vllm`, `vllm==0.11.2`.

    A release that is not recorded has the rules of the nearest older one.

    Raises:
        LorascopeError: There is no such server, or no release that old is recorded.
    """
    match = _SERVER.fullmatch(server.strip().lower())
    if match is None or match["server"] not in SERVERS:
        raise LorascopeError(f"unknown server {server!r}", hint="Use vllm or sglang, or a release: vllm==0.33.0")
    name = match["server"]
    content = _content(name)
    releases: list[str] = content["releases"]
    wanted = match["release"] or releases[0]
    older = [release for release in releases if _numbers(release) <= _numbers(wanted)]
    if not older:
        raise LorascopeError(
            f"{TITLES[name]} {wanted} is older than the recorded releases",
            hint=f"Use {TITLES[name]} {releases[-1]} to {releases[0]}.",
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
    """What differs in a release from the next newer one."""
    parts: dict[str, Any] = {}
    for part, change in changes.items():
        if isinstance(change, dict) and isinstance(newer[part], dict):
            merged = {**newer[part], **change}
            parts[part] = {key: value for key, value in merged.items() if value is not None}
        else:
            parts[part] = change
    return parts


@functools.lru_cache(maxsize=4)
def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = load_json(f"servers/{name}.json")
    return content


def _numbers(release: str) -> Release:
    """The numbers of a release, also of one written as a single number."""
    return parse_release(release if "." in release else f"{release}.0") or ()
