"""Requests for one repository of the Hub: bounded, patient for a while, counted, and every refusal with its next step."""

from __future__ import annotations

import importlib
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoints import Span
from lorascope.sources.configurations import error_text
from lorascope.sources.json_text import parse_json

_T = TypeVar("_T")
# Seconds between tries of what may pass, and the longest that a server may ask to wait.
_PAUSES = (0.5, 1.0, 2.0)
_LONGEST_PAUSE = 30
# What huggingface_hub tries again, too.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# Seconds to connect at all, after which nothing is tried again, and for one answer as a whole however slowly it drips.
_CONNECTING = 5
_PATIENCE = 25
_DEADLINE = 300
# The facts of a repository: some hundred bytes a file.
_MOST_FACTS = 32 * 2**20
_LONGEST_WORD = 200
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def hub_utilities() -> Any:
    """`huggingface_hub.utils`, which exports what it has for everyone but a type checker."""
    return importlib.import_module("huggingface_hub.utils")


class UnreachableError(LorascopeError):
    """The Hub cannot be asked now, so that only a cache can answer."""


class _PassingError(Exception):
    """A failure that another try may not meet."""

    def __init__(self, said: str, pause: float = 0) -> None:
        super().__init__(said)
        self.pause = pause


class Connection:
    """What is asked of the Hub about one repository, through huggingface_hub's session and with its token.

    Args:
        name: The repository's id.
        revision: What the user asked for, for messages.

    Attributes:
        requests: How many were sent, redirections and repetitions included; a whole file counts as a HEAD and a GET.
        transferred: Bytes of answers' bodies that were received.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        from lorascope import __version__

        self.name = name
        self.revision = revision
        self.requests = 0
        self.transferred = 0
        self._reached = False
        self._counting = threading.Lock()
        headers = hub_utilities().build_hf_headers(library_name="lorascope", library_version=__version__)
        # Packed bytes could not be compared with the range that was asked for.
        self._headers = {**headers, "Accept-Encoding": "identity"}

    def facts(self) -> dict[str, Any]:
        """What the Hub's API says of the repository at the revision, sizes of files included.

        Raises:
            UnreachableError: Nothing answers, or only that it cannot now.
            LorascopeError: There is no such repository or revision, or something else answers.
        """
        from huggingface_hub import constants

        # https://huggingface.co/docs/hub/api; `blobs` adds the sizes.
        url = f"{constants.ENDPOINT}/api/models/{self.name}"
        if self.revision is not None:
            url += f"/revision/{urllib.parse.quote(self.revision, safe='')}"

        def take(response: Any) -> bytes:
            if response.status_code != 200:
                self._refuse(response.status_code, response.headers)
            return self._body(response.iter_bytes(), _MOST_FACTS)

        text = self._patiently(lambda: self._once(f"{url}?blobs=true", {}, take), threading.Event())
        hint = "Check HF_ENDPOINT, and whether a proxy or a log-in page answers instead of the Hub."
        found = parse_json(text, url, hint)
        if not isinstance(found, dict):
            raise LorascopeError(f"is a {type(found).__name__}, not an object", where=url, hint=hint)
        return found

    def part(self, url: str, span: Span, ended: threading.Event) -> tuple[bytes, int | None]:
        """Some bytes of a file, fewer where it ends before, and the whole file's size where the server tells it.

        Args:
            url: The file's.
            span: Which bytes, at least one.
            ended: Set when the bytes are no longer wanted: then nothing is tried again.

        Raises:
            LorascopeError: They cannot be had, or the server sends others.
        """
        length = span.end - span.start

        def take(response: Any) -> tuple[bytes, int | None]:
            said = response.headers.get("Content-Range", "")
            beyond = re.fullmatch(r"bytes \*/(\d{1,18})", said)
            if response.status_code == 416 and beyond and int(beyond[1]) <= span.start:
                return b"", int(beyond[1])
            if response.status_code >= 400:
                self._refuse(response.status_code, response.headers, span.file)
            if response.status_code != 206:
                self._refuse_server(f"answers with the whole of {span.file} (status {response.status_code})")
            found = _CONTENT_RANGE.fullmatch(said)
            size = int(found[3]) if found and found[3] != "*" else None
            last = span.end - 1 if size is None else min(span.end, size) - 1
            if found is None or (int(found[1]), int(found[2])) != (span.start, last):
                self._refuse_server(f"answers bytes {span.start}-{span.end - 1} of {span.file} with {quoted(said)}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                self._refuse_server(f"packs the bytes of {span.file} though told not to")
            body = self._body(response.iter_raw(), length)
            if len(body) != last - span.start + 1:
                self._refuse_server(f"sends {len(body)} bytes of {span.file} as {quoted(said)}")
            return body, size

        headers = {"Range": f"bytes={span.start}-{span.end - 1}"}
        return self._patiently(lambda: self._once(url, headers, take), ended)

    def whole(self, file: str, commit: str) -> bytes:
        """A small file, by way of huggingface_hub's cache, where it stays.

        Raises:
            LorascopeError: It cannot be had.
        """
        import huggingface_hub

        def once() -> bytes:
            try:
                return Path(huggingface_hub.hf_hub_download(self.name, file, revision=commit)).read_bytes()
            except Exception as error:  # the Hub's errors have no common base
                cause: BaseException | None = error
                while cause is not None and not hasattr(cause, "response"):
                    cause = cause.__cause__
                if cause is None:
                    raise UnreachableError(
                        f"{file} cannot be read: {error_text(error)}",
                        where=self.name,
                        hint="Check the network, and that there is room in the cache (HF_HOME).",
                    ) from error
                response: Any = cause.response
                # huggingface_hub itself waits for half a minute where there were too many requests.
                if response.status_code in _PASSING - {429}:
                    said = f"the Hub answers with status {response.status_code}"
                    raise _PassingError(said, _asked_pause(response)) from error
                raise refusal(self.name, self.revision, response.status_code, response.headers, file) from error
            finally:
                with self._counting:
                    self.requests += 2

        body = self._patiently(once, threading.Event())
        with self._counting:
            self.transferred += len(body)
        return body

    def _patiently(self, once: Callable[[], _T], ended: threading.Event) -> _T:
        begun = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return once()
            except _PassingError as failure:
                last = tries > len(_PAUSES) or time.monotonic() - begun > _PATIENCE
                pause = failure.pause if last else max(failure.pause, _PAUSES[tries - 1])
                if last or pause > _LONGEST_PAUSE or ended.wait(pause):
                    asked = f", and asks to wait {pause:.0f} seconds" if pause > _LONGEST_PAUSE else ""
                    raise UnreachableError(
                        f"{failure}{asked} ({tries} {'try' if tries == 1 else 'tries'})",
                        where=self.name,
                        hint="Check the network, or try again later (https://status.huggingface.co). "
                        f"What `hf download {self.name}` has fetched is read without the Hub.",
                    ) from failure.__cause__

    def _once(self, url: str, headers: dict[str, str], take: Callable[[Any], _T]) -> _T:
        from huggingface_hub import constants

        waiting = constants.HF_HUB_DOWNLOAD_TIMEOUT
        timeout = (_CONNECTING, waiting, waiting, None)  # to connect, to read, to write, for a free connection
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2] or quoted(url)
        response: Any = None
        try:
            with (
                hub_utilities()
                .get_session()
                .stream(
                    "GET", url, headers={**self._headers, **headers}, timeout=timeout, follow_redirects=True
                ) as response
            ):
                self._reached = True
                if response.status_code in _PASSING:
                    raise _PassingError(f"{host} answers with status {response.status_code}", _asked_pause(response))
                return take(response)
        except (LorascopeError, _PassingError):
            raise
        except Exception as error:  # of httpx or httpx2, whichever this huggingface_hub uses
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
                raise _PassingError(f"{host} does not answer within {waiting} seconds") from error
            if kinds & {"NetworkError", "RemoteProtocolError", "ConnectTimeout"} and self._reached:
                raise _PassingError(f"{host} breaks off: {error_text(error)}") from error
            if "LocalProtocolError" in kinds or isinstance(error, UnicodeError):
                # Its message has the token in it.
                raise LorascopeError(
                    "your token holds a character that no token has, and cannot be sent",
                    where=self.name,
                    hint="Set HF_TOKEN anew, or log in again: hf auth login",
                ) from None
            raise UnreachableError(
                f"{host} cannot be reached: {error_text(error)}",
                where=self.name,
                hint="Check the network and HF_ENDPOINT. "
                f"What `hf download {self.name}` has fetched is read without the Hub.",
            ) from error
        finally:
            with self._counting:
                self.requests += 1 + (len(response.history) if response is not None else 0)
                self.transferred += response.num_bytes_downloaded if response is not None else 0

    def _body(self, chunks: Iterable[bytes], most: int) -> bytes:
        begun = time.monotonic()
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if len(body) > most:
                self._refuse_server(f"sends more than the {most} bytes that were asked for")
            if time.monotonic() - begun > _DEADLINE:
                raise _PassingError(f"the server sent {len(body)} bytes in {_DEADLINE} seconds")
        return bytes(body)

    def _refuse_server(self, said: str) -> NoReturn:
        raise LorascopeError(
            f"the server {said}",
            where=self.name,
            hint="Only parts of the weights are read, which this server, mirror or proxy cannot give. "
            f"Unset HF_ENDPOINT, or download it: hf download {self.name}",
        )

    def _refuse(self, status: int, headers: Any, file: str = "") -> NoReturn:
        raise refusal(self.name, self.revision, status, headers, file)


def refusal(name: str, revision: str | None, status: int, headers: Any, file: str = "") -> LorascopeError:
    """Why the Hub does not give something, and what to do about it.

    Args:
        name: The repository's id.
        revision: The branch, tag or commit that was asked for.
        status: The answer's status.
        headers: Its headers; `X-Error-Code` and `X-Error-Message` are the Hub's own words.
        file: The file that was asked for, empty for the repository itself.
    """
    code = headers.get("X-Error-Code", "")
    said = " ".join(headers.get("X-Error-Message", "").split())[:_LONGEST_WORD]
    log_in = "hf auth login"
    if code == "GatedRepo":
        fault = "is gated, and " + ("you are not logged in" if status == 401 else "your account has no access yet")
        hint = f"Accept the licence at https://huggingface.co/{name}, then: {log_in}"
    elif code == "RevisionNotFound":
        fault = f"has no revision {revision!r}"
        hint = f"Branches, tags and commits are listed at https://huggingface.co/{name}/tree/main"
    elif code == "EntryNotFound":
        fault = f"has no file {file!r}"
        hint = f"Its files are listed at https://huggingface.co/{name}/tree/main"
    elif status == 401 and "nvalid" in said:
        fault, hint = f"your token is refused ({said})", f"Log in again: {log_in}"
    elif code == "RepoNotFound" or status == 401 or (status == 404 and not file):
        fault = "there is no such repository, or it is private"
        hint = f"Check the name; if it is private, log in with an account that may read it: {log_in}"
    elif status == 403:
        fault = f"access is refused{f' ({said})' if said else ''}"
        hint = f"Use a token that may read it: {log_in}"
    else:
        fault = f"the Hub answers with status {status}{f' ({said})' if said else ''}"
        hint = f"Look at https://huggingface.co/{name}, or download it: hf download {name}"
        if status in _PASSING:
            hint = "Try again later (https://status.huggingface.co)."
    return LorascopeError(fault, where=name, hint=hint)


def _asked_pause(response: Any) -> float:
    """Seconds that a server asks to wait: by `Retry-After`, or by its rate limit where none is left of that."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*", response.headers.get("Retry-After", "")) or re.search(
        r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,6})", response.headers.get("RateLimit", "")
    )
    return float(found[1]) if found else 0.0
