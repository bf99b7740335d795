"""Hub repositories as files, pinned to a commit."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_printable, quoted
from lorascope.sandbox.hub_library import hub_part
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.folder import Folder, open_folder
from lorascope.sources.files.hub_requests import Connection, UnreachableError, hub_utilities
from lorascope.sources.files.json_text import first_faults
from lorascope.sources.files.plain import MOST_BYTES
from lorascope.sources.source_kinds import hub_folder

_ALONGSIDE = 8
# Spans as near as this are joined: a request costs more than the bytes between.
_GAP = 16 * 2**10
# The headers of the largest model of all are some 20 MB; with a first guess of 100 kB a shard, 2,000 shards fit.
_MOST_IN_ALL = 512 * 2**20
_COMMIT = re.compile(r"[0-9a-f]{40}")
# A repository has the first if it is a model's, the second if it is an adapter's, the third if it is a pipeline's.
_CONFIGURATIONS = ("config.json", "adapter_config.json", "model_index.json")
_ORDINARY = re.compile(r"(?:([A-Za-z0-9_]{1,60})/)?[^/\\]{1,255}")


class Repository:
    """Files at the root of a repository, at one commit; implements `checkpoint.types.Files`.

    Args:
        where: Its name in messages.
        commit: The commit that everything is read at.
        names: The files at its root.
        sizes: Their sizes, where the Hub states them.
        folders: The files of folders at the root, with their sizes.
        folder: Which of them it is, if it is one.
        connection: Reads them; None where only the cache is read.
        cached: The commit's folder in the cache, if any: what it has is not requested again.
        notes: What the user should know about the files' origin.
        progress: Called with the number of parts read and of all, after each.
    """

    def __init__(
        self,
        where: str,
        commit: str,
        names: frozenset[str],
        *,
        sizes: Mapping[str, int] | None = None,
        folders: Mapping[str, Mapping[str, int | None]] | None = None,
        folder: str = "",
        connection: Connection | None = None,
        cached: Folder | None = None,
        notes: tuple[str, ...] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.where = where
        self.commit = commit
        self.names = names
        self.notes = notes
        self._sizes = dict(sizes or {})
        self._folders = folders or {}
        self._folder = folder
        self._connection = connection
        self._cached = cached
        self._progress = progress
        self._whole: dict[str, bytes] = {}

    @property
    def requests(self) -> int:
        """Requests sent so far, redirections and retries included."""
        return self._connection.requests if self._connection else 0

    @property
    def transferred(self) -> int:
        """Bytes of bodies received so far."""
        return self._connection.transferred if self._connection else 0

    def inner(self, folder: str) -> Repository:
        """A folder at its root, such as a part of a pipeline of diffusers.

        Raises:
            LorascopeError: There is none.
        """
        cached = None
        if self._cached is not None and Path(self._cached.where, folder).is_dir():
            cached = self._cached.inner(folder)
        files = self._folders.get(folder, dict.fromkeys(cached.names) if cached and not self._connection else {})
        if not files:
            hint = f"To fetch all of it: hf download {self.where}" if self._connection is None else ""
            raise LorascopeError(f"has no folder {quoted(folder)}", where=self.where, hint=hint)
        return Repository(
            f"{self.where}/{folder}",
            self.commit,
            frozenset(files),
            sizes={name: size for name, size in files.items() if size is not None},
            folder=folder,
            connection=self._connection,
            cached=cached,
            notes=self.notes,
            progress=self._progress,
        )

    def _path(self, name: str) -> str:
        """A file's name in the repository."""
        return f"{self._folder}/{name}" if self._folder else name

    def size(self, name: str) -> int:
        """A file's bytes. See `Files`."""
        self._require([name])
        if self._cached is not None and name in self._cached.names:
            return self._cached.size(name)
        if name not in self._sizes and name.endswith(".json"):
            self._sizes[name] = len(self._whole_file(name))
        elif name not in self._sizes:
            self._fetch([Span(name, 0, 1)])
        if name not in self._sizes:
            fault = f"the server does not tell the size of {name}"
            raise LorascopeError(fault, where=self.where, hint="Unset HF_ENDPOINT.")
        return self._sizes[name]

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, in order. See `Files`."""
        self._require([span.file for span in spans])
        distinct = dict.fromkeys(spans)
        local = [span for span in distinct if self._cached is not None and span.file in self._cached.names]
        contents = dict(zip(local, self._cached.read(local), strict=True)) if self._cached and local else {}
        parts = []
        for span in (span for span in distinct if span not in contents):
            end = min(span.end, self._sizes.get(span.file, span.end))
            if end <= span.start:
                contents[span] = b""
            elif span.file.endswith(".json"):
                contents[span] = self._whole_file(span.file)[span.start : end]
            else:
                parts.append(span)
        joined = _joined(parts)
        for (whole, inner), body in zip(joined.items(), self._fetch(list(joined)), strict=True):
            contents |= {span: body[span.start - whole.start : span.end - whole.start] for span in inner}
        return [contents[span] for span in spans]

    def _require(self, names: Sequence[str]) -> None:
        missing = sorted(set(names) - self.names)
        if missing:
            faults = first_faults(f"has no file {quoted(name)} at its root" for name in missing)
            name = self.where.removesuffix(f"/{self._folder}")
            hint = f"Its files are listed at https://huggingface.co/{name}/tree/{self.commit}"
            if self._connection is None:
                hint = f"{'; '.join(self.notes)}. To fetch all of it: hf download {name}"
            raise LorascopeError(*faults, where=self.where, hint=hint)

    def _fetch(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, by a few requests at once."""
        if not spans:
            return []
        ended = threading.Event()
        length = sum(span.end - span.start for span in spans)
        if self.transferred + length > _MOST_IN_ALL:
            raise LorascopeError(
                f"{length} bytes in {len(spans)} parts are more than the {_MOST_IN_ALL} that are read of a repository",
                where=self.where,
                hint="Are these a model's weights? Headers are far smaller.",
            )
        with ThreadPoolExecutor(min(_ALONGSIDE, len(spans))) as pool:
            running = [pool.submit(self._fetch_part, span, ended) for span in spans]
            try:
                for done, part in enumerate(as_completed(running), 1):
                    part.result()
                    if self._progress is not None:
                        self._progress(done, len(spans))
            except BaseException:
                ended.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [part.result() for part in running]

    def _fetch_part(self, span: Span, ended: threading.Event) -> bytes:
        assert self._connection is not None, "without a connection the cache has every name"
        body, size = self._connection.part(span._replace(file=self._path(span.file)), ended, self.commit)
        known = self._sizes.setdefault(span.file, size) if size is not None else None
        if known != size:
            raise LorascopeError(
                f"{span.file} has {size} bytes, and {known} by the repository's facts",
                where=self.where,
                hint="Try again; if it stays so, the server, mirror or proxy is broken (HF_ENDPOINT).",
            )
        return body

    def _whole_file(self, name: str) -> bytes:
        """A small file, kept in memory."""
        if name not in self._whole:
            size = self._sizes.get(name)
            if size is not None and size > MOST_BYTES:
                raise LorascopeError(
                    f"{name} has {size} bytes, more than the {MOST_BYTES} that are read",
                    where=self.where,
                    hint="Is this a model's configuration, or its weights?",
                )
            assert self._connection is not None, "without a connection the cache has every name"
            self._whole[name] = self._connection.whole(self._path(name), self.commit, size=size, most=MOST_BYTES)
        return self._whole[name]


def _joined(spans: Sequence[Span]) -> dict[Span, list[Span]]:
    """Spans that cover all others, with what each covers."""
    groups: list[list[Span]] = []
    end = 0
    for span in sorted(spans, key=lambda span: (span.file, span.start)):
        if groups and groups[-1][0].file == span.file and span.start <= end + _GAP:
            groups[-1].append(span)
            end = max(end, span.end)
        else:
            groups.append([span])
            end = span.end
    return {Span(group[0].file, group[0].start, max(span.end for span in group)): group for group in groups}


def open_repository(
    name: str, revision: str | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Repository:
    """Open a Hub repository, pinned to its present commit.

    No file is read yet.

    Where the Hub does not answer, or must not be asked (`HF_HUB_OFFLINE`), huggingface_hub's cache is read.

    Args:
        name: The repository's id, `mistralai/Mistral-7B-v0.3`, or that with the part of a pipeline after it.
        revision: Branch, tag or commit; the main branch if None.
        progress: Called with the number of parts read and of all, after each.

    Raises:
        LorascopeError: There is no such repository or revision, it may not be read, or neither the Hub nor the cache has
            it.
    """
    name, folder = hub_folder(name)
    repository = _opened(name, revision, progress)
    return repository.inner(folder) if folder else repository


def _opened(name: str, revision: str | None, progress: Callable[[int, int], None] | None) -> Repository:
    try:
        constants, errors, _ = (hub_part(part, name) for part in ("constants", "errors", "file_download"))
    except ImportError as error:
        package = error.name or "huggingface_hub"
        needs = "huggingface_hub" if package == "huggingface_hub" else f"huggingface_hub, which needs {package}"
        raise LorascopeError(
            f"Reading from the Hub needs {needs}.", where=name, hint="Install it with: pip install 'lorascope[hub]'"
        ) from error
    try:
        hub_utilities().validate_repo_id(name)
    except errors.HFValidationError as error:
        raise LorascopeError(
            "is not a Hub repository name", where=quoted(name), hint="A name is such as org/model."
        ) from error
    if constants.HF_HUB_OFFLINE:
        cached = _from_cache(name, revision, "HF_HUB_OFFLINE is set")
        if cached is None:
            raise LorascopeError(
                "HF_HUB_OFFLINE is set, and it is not in the cache",
                where=name if revision is None else f"{name} at {revision}",
                hint=f"Unset HF_HUB_OFFLINE, or fetch it once where there is a network: hf download {name}",
            )
        return cached
    connection = Connection(name, revision)
    try:
        facts = connection.facts()
    except UnreachableError as error:
        cached = _from_cache(name, revision, error.faults[0])
        if cached is None:
            raise
        return cached
    commit, folders = _root_files(name, facts)
    sizes = folders.pop("", {})
    try:
        folder = _snapshot(name, commit)
    except LorascopeError:  # a cache that cannot be read does not keep the Hub from being asked
        folder = None
    known = {file: size for file, size in sizes.items() if size is not None}
    return Repository(
        name,
        commit,
        frozenset(sizes),
        sizes=known,
        folders=folders,
        connection=connection,
        cached=folder,
        progress=progress,
    )


def _root_files(name: str, facts: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, int | None]]]:
    """The commit, and the files of the root and of its folders with their stated sizes."""
    commit, siblings = facts.get("sha"), facts.get("siblings")
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit) and isinstance(siblings, list)):
        raise LorascopeError(
            f"the Hub's facts tell no commit and files: sha is {quoted(commit)}",
            where=name,
            hint="Check HF_ENDPOINT: is what answers there a Hub?",
        )
    folders: dict[str, dict[str, int | None]] = {"": {}}
    for entry in siblings:
        file = entry.get("rfilename") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not is_printable(file):
            continue
        ordinary, leaf = _ORDINARY.fullmatch(file), file.rpartition("/")[2]
        if ordinary and leaf not in (".", ".."):
            size = entry.get("size")
            folders.setdefault(ordinary[1] or "", {})[leaf] = size if type(size) is int and size >= 0 else None
    return commit, folders


def _snapshot(name: str, revision: str | None) -> Folder | None:
    """The cache's folder of a revision, found by its configuration."""
    for configuration in _CONFIGURATIONS:
        try:
            path = hub_part("file_download").try_to_load_from_cache(name, configuration, revision=revision)
        except (OSError, ValueError):  # a revision that no file name can hold
            return None
        if isinstance(path, str):
            return open_folder(Path(path).parent)
    return None


def _from_cache(name: str, revision: str | None, why: str) -> Repository | None:
    folder = _snapshot(name, revision)
    if folder is None:
        return None
    commit = Path(folder.where).name
    note = f"{why}: the cache is read, at commit {commit[:7]}"
    return Repository(name, commit, folder.names, cached=folder, notes=(note,))
