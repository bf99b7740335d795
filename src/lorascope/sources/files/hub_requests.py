"""Requests for one Hub repository: bounded, retried and counted.

huggingface_hub gives the session, the token and the settings. Its own backoff is not used: it waits for as long as a
server asks, and reads bodies of any size into its errors.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from lorascope.errors import LorascopeError, error_text
from lorascope.foreign_text import quoted
from lorascope.sandbox.hub_library import hub_part
from lorascope.sandbox.watchdog import OverrunError, Watchdog
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.json_text import parse_object
from lorascope.sources.files.redirects import MOST_REDIRECTS, peer_fault, redirect_fault, same_origin

_T = TypeVar("_T")
# Seconds between tries, and the longest that a server may ask to wait.
_PAUSES = (0.5, 1.0, 2.0)
_LONGEST_PAUSE = 30
# Statuses that another try may not meet; huggingface_hub's own.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
# Seconds to connect; to retry; until a body begins, redirections included; and for a whole answer, however slowly it drips:
# so many and one per so many bytes, up to the last figure.
_CONNECTING = 5
_PATIENCE = 25
_ANSWERING = 60
_BODY = 60
_SLOWEST = 50_000
_DEADLINE = 300
# The facts of a repository take some hundred bytes per file.
_MOST_FACTS = 32 * 2**20
_LONGEST_WORD = 200
_STATUS = "https://status.huggingface.co"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def hub_utilities() -> Any:
    """`huggingface_hub.utils`, untyped."""
    return hub_part("utils")


class UnreachableError(LorascopeError):
    """The Hub does not answer now; only a cache can."""


class _PassingError(Exception):
    """A failure that another try may not meet."""

    def __init__(self, message: str, pause: float = 0) -> None:
        super().__init__(message)
        self.pause = pause


class Connection:
    """Requests for one repository, through huggingface_hub's session and with its token.

    Args:
        name: The repository's id.
        revision: What the user asked for, for messages.

    Attributes:
        requests: How many were sent, redirections and retries included.
        transferred: Bytes of bodies received.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        from lorascope._version import __version__

        self.name = name
        self.revision = revision
        self.requests = 0
        self.transferred = 0
        self._reached = False
        self._waiting = float(hub_part("constants").HF_HUB_DOWNLOAD_TIMEOUT)  # seconds that a server may be silent
        self._without = f"What `hf download {name}` has fetched is read without the Hub."
        self._counting = threading.Lock()
        # Packed bytes could not be compared with their range. Not build_hf_headers: it asks the endpoint, without a bound,
        # for a list of agents and writes that.
        self._headers = {"User-Agent": f"lorascope/{__version__}", "Accept-Encoding": "identity", **_token_header()}

    def facts(self) -> dict[str, Any]:
        """The Hub's facts of the repository at the revision, file sizes included.

        Raises:
            UnreachableError: Nothing answers now.
            LorascopeError: There is no such repository or revision, or what answers is no Hub.
        """
        # https://huggingface.co/docs/hub/api; `blobs` adds the sizes.
        url = f"{hub_part('constants').ENDPOINT}/api/models/{self.name}"
        if self.revision is not None:
            url += f"/revision/{urllib.parse.quote(self.revision, safe='')}"
        take = functools.partial(self._complete, what="the repository's facts", most=_MOST_FACTS)
        text = self._patiently(f"{url}?blobs=true", take, _MOST_FACTS)
        hint = "Check HF_ENDPOINT, and whether a proxy or a log-in page answers instead of the Hub."
        return parse_object(text, url, hint)

    def whole(self, file: str, commit: str, *, size: int | None, most: int) -> bytes:
        """A small file, never written to disk.

        So nothing that a server names becomes a path.

        Args:
            file: Its name.
            commit: The commit to read it at.
            size: Its bytes by the repository's facts, where they state them.
            most: The most bytes that it may have.

        Raises:
            LorascopeError: It cannot be read, or contradicts the facts.
        """
        length = most if size is None else size
        take = functools.partial(self._complete, what=file, most=length, file=file)
        body = self._patiently(_url(self.name, file, commit), take, length, commit=commit)
        if size is not None and len(body) != size:
            raise self._server_fault(f"sends {len(body)} bytes of {file}, which has {size} by the repository's facts")
        return body

    def part(self, span: Span, ended: threading.Event, commit: str) -> tuple[bytes, int | None]:
        """Some bytes of a file, and its size where stated.

        Args:
            span: Which bytes, at least one.
            ended: Set when the bytes are no longer wanted: then nothing is retried.
            commit: The commit to read them at.

        Raises:
            LorascopeError: They cannot be read, or the server sends others.
        """
        headers = {"Range": f"bytes={span.start}-{span.end - 1}"}
        take = functools.partial(self._take_part, span)
        url = _url(self.name, span.file, commit)
        return self._patiently(url, take, span.end - span.start, headers=headers, commit=commit, ended=ended)

    def _take_part(self, span: Span, response: Any) -> tuple[bytes, int | None]:
        stated = response.headers.get("Content-Range", "")
        beyond = re.fullmatch(r"bytes \*/(\d{1,18})", stated)
        if response.status_code == 416 and beyond and int(beyond[1]) <= span.start:
            return b"", int(beyond[1])
        if response.status_code >= 400:
            raise refusal(self.name, self.revision, response.status_code, response.headers, span.file)
        if response.status_code != 206:
            raise self._server_fault(f"answers with the whole of {span.file} (status {response.status_code})")
        match = _CONTENT_RANGE.fullmatch(stated)
        size = int(match[3]) if match and match[3] != "*" else None
        last = span.end - 1 if size is None else min(span.end, size) - 1
        if match is None or (int(match[1]), int(match[2])) != (span.start, last):
            raise self._server_fault(f"answers bytes {span.start}-{span.end - 1} of {span.file} with {quoted(stated)}")
        body = self._body(response, f"the bytes of {span.file}", span.end - span.start)
        if len(body) != last - span.start + 1:
            raise self._server_fault(f"sends {len(body)} bytes of {span.file} as {quoted(stated)}")
        return body, size

    def _complete(self, response: Any, what: str, most: int, file: str = "") -> bytes:
        if response.status_code != 200:
            raise refusal(self.name, self.revision, response.status_code, response.headers, file)
        return self._body(response, what, most)

    def _body(self, response: Any, what: str, most: int) -> bytes:
        """The body of an answer, which must not be packed.

        A few packed bytes could fill the memory.
        """
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise self._server_fault(f"packs {what} though told not to")
        begun = time.monotonic()
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > most:
                raise self._server_fault(f"sends more than the {most} bytes that were asked for")
            if time.monotonic() - begun > _longest(most):
                raise _PassingError(f"the server sent {len(body)} bytes in {_longest(most):g} seconds")
        return bytes(body)

    def _patiently(
        self,
        url: str,
        take: Callable[[Any], _T],
        length: int,
        *,
        headers: dict[str, str] | None = None,
        commit: str = "",
        ended: threading.Event | None = None,
    ) -> _T:
        """What `take` returns for an answer, after a few tries."""
        begun = time.monotonic()
        tries = 0
        ended = ended or threading.Event()
        while True:
            tries += 1
            try:
                return self._once(url, headers or {}, take, length, commit)
            except _PassingError as failure:
                last = tries > len(_PAUSES) or time.monotonic() - begun > _PATIENCE
                pause = failure.pause if last else max(failure.pause, _PAUSES[tries - 1])
                if last or pause > _LONGEST_PAUSE or ended.wait(pause):
                    wait = f", and asks to wait {pause:.0f} seconds" if pause > _LONGEST_PAUSE else ""
                    raise UnreachableError(
                        f"{failure}{wait} ({tries} {'try' if tries == 1 else 'tries'})",
                        where=self.name,
                        hint=f"Check the network, or try again later ({_STATUS}). {self._without}",
                    ) from failure.__cause__

    def _once(self, url: str, headers: dict[str, str], take: Callable[[Any], _T], length: int, commit: str) -> _T:
        """What `take` returns for one answer, redirections followed."""
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2] or quoted(url)
        answered, begun = threading.Event(), time.monotonic()

        def passed() -> str:
            elapsed = time.monotonic() - begun
            if not answered.is_set() and elapsed > min(_ANSWERING, _DEADLINE):
                return f"{host} has not begun to answer within {min(_ANSWERING, _DEADLINE):g} seconds"
            longest = _longest(length)
            return f"{host} has not finished its answer within {longest:g} seconds" if elapsed > longest else ""

        watchdog = Watchdog(passed)
        try:
            with watchdog:
                return self._followed(url, headers, take, answered, commit)
        except (LorascopeError, _PassingError):
            raise
        except OverrunError:
            watchdog.stop()
            raise _PassingError(watchdog.reason) from None
        except Exception as error:  # of httpx or httpx2, whichever this huggingface_hub uses
            raise self._failure(error, host) from (None if _holds_token(error) else error)

    def _failure(self, error: Exception, host: str) -> Exception:
        """The error for a request that failed below HTTP."""
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
            return _PassingError(f"{host} does not answer within {self._waiting} seconds")
        if kinds & {"NetworkError", "RemoteProtocolError", "ConnectTimeout"} and self._reached:
            return _PassingError(f"{host} breaks off: {error_text(error)}")
        if _holds_token(error):
            return LorascopeError(
                "your token holds a character that no token has, and cannot be sent",
                where=self.name,
                hint="Set HF_TOKEN anew, or log in again: hf auth login",
            )
        return UnreachableError(
            f"{host} cannot be reached: {error_text(error)}",
            where=self.name,
            hint=f"Check the network and HF_ENDPOINT. {self._without}",
        )

    def _followed(
        self, url: str, headers: dict[str, str], take: Callable[[Any], _T], answered: threading.Event, commit: str
    ) -> _T:
        target = url
        for _ in range(MOST_REDIRECTS + 1):
            # The token goes to the server that was asked first, and to no other.
            ours = same_origin(url, target)
            own = {name: value for name, value in self._headers.items() if ours or name != "Authorization"}
            timeout = (_CONNECTING, self._waiting, self._waiting, None)  # connect, read, write, free connection
            stream = hub_utilities().get_session().stream
            response: Any = None
            try:
                with stream(
                    "GET", target, headers={**own, **headers}, timeout=timeout, follow_redirects=False
                ) as response:
                    self._reached = True
                    fault = "" if target == url else peer_fault(url, response)
                    if fault:
                        raise self._server_fault(f"sends a request on to {quoted(target)}, which {fault}")
                    if response.status_code in _PASSING:
                        at = urllib.parse.urlsplit(target).netloc.rpartition("@")[2]
                        raise _PassingError(
                            f"{at} answers with status {response.status_code}", _requested_pause(response)
                        )
                    stated = response.headers.get("X-Repo-Commit", "") if ours else ""
                    if commit and stated and stated != commit:
                        raise self._server_fault(f"answers of commit {quoted(stated)}, not of {commit}")
                    if response.status_code not in _REDIRECTIONS:
                        answered.set()
                        return take(response)
                    target = self._next(url, target, response.headers.get("Location", ""))
            finally:
                with self._counting:
                    self.requests += 1
                    self.transferred += response.num_bytes_downloaded if response is not None else 0
        raise self._server_fault(f"sends requests on more than {MOST_REDIRECTS} times")

    def _next(self, url: str, source: str, location: str) -> str:
        """Target of a redirection."""
        try:
            target = urllib.parse.urljoin(source, location)
        except ValueError:
            target = location
        fault = "is not an address" if not location.isprintable() or not location else redirect_fault(url, target)
        if fault:
            raise self._server_fault(f"sends a request on to {quoted(target)}, which {fault}")
        return target

    def _server_fault(self, fault: str) -> LorascopeError:
        return LorascopeError(
            f"the server {fault}",
            where=self.name,
            hint="Only parts of the weights are read, which this server, mirror or proxy cannot give. "
            f"Unset HF_ENDPOINT, or download it: hf download {self.name}",
        )


def refusal(name: str, revision: str | None, status: int, headers: Any, file: str = "") -> LorascopeError:
    """The error for an answer that refuses, with the next step.

    Args:
        name: The repository's id.
        revision: The branch, tag or commit that was asked for.
        status: The answer's status.
        headers: Its headers; `X-Error-Code` and `X-Error-Message` are the Hub's own words.
        file: The file that was asked for, empty for the repository itself.
    """
    code = headers.get("X-Error-Code", "")
    message = " ".join(headers.get("X-Error-Message", "").split())[:_LONGEST_WORD]
    log_in = "hf auth login"
    if code == "GatedRepo":
        fault = "is gated, and " + ("you are not logged in" if status == 401 else "your account has no access yet")
        hint = f"Accept the license at https://huggingface.co/{name}, then: {log_in}"
    elif code == "RevisionNotFound":
        fault = f"has no revision {revision!r}"
        hint = f"Branches, tags and commits are listed at https://huggingface.co/{name}/tree/main"
    elif code == "EntryNotFound":
        fault = f"has no file {file!r}"
        hint = f"Its files are listed at https://huggingface.co/{name}/tree/main"
    elif status == 401 and "nvalid" in message:
        fault, hint = f"your token is refused ({message})", f"Log in again: {log_in}"
    elif code == "RepoNotFound" or status == 401 or (status == 404 and not file):
        fault = "there is no such repository, or it is private"
        hint = f"Check the name; if it is private, log in with an account that may read it: {log_in}"
    elif status == 403:
        fault = f"access is refused{f' ({message})' if message else ''}"
        hint = f"Use a token that may read it: {log_in}"
    else:
        fault = f"the Hub answers with status {status}{f' ({message})' if message else ''}"
        hint = f"Look at https://huggingface.co/{name}, or download it: hf download {name}"
        if status in _PASSING:
            hint = f"Try again later ({_STATUS})."
    return LorascopeError(fault, where=name, hint=hint)


def _url(name: str, file: str, commit: str) -> str:
    return str(hub_part("file_download").hf_hub_url(name, file, revision=commit))


def _longest(length: int) -> float:
    """Seconds for one answer of so many bytes."""
    return min(_DEADLINE, _BODY + length / _SLOWEST)


def _token_header() -> dict[str, str]:
    """The user's token, unless huggingface_hub is set to send it only on request."""
    implicit = not hub_part("constants").HF_HUB_DISABLE_IMPLICIT_TOKEN
    token = hub_utilities().get_token() if implicit else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _holds_token(error: Exception) -> bool:
    """The error quotes a header that cannot be sent, token included."""
    return isinstance(error, UnicodeError) or "LocalProtocolError" in {kind.__name__ for kind in type(error).__mro__}


def _requested_pause(response: Any) -> float:
    """Seconds to wait, by `Retry-After` or an exhausted rate limit."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*", response.headers.get("Retry-After", "")) or re.search(
        r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,6})", response.headers.get("RateLimit", "")
    )
    return float(match[1]) if match else 0.0
