"""Requests for one repository of the Hub: bounded, patient for a while, counted, and every refusal with its next step."""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from lorascope.errors import LorascopeError, error_text
from lorascope.foreign_text import quoted
from lorascope.sandbox.hub_library import hub_part
from lorascope.sandbox.watchdog import OverrunError, Watchdog
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.json_text import parse_json
from lorascope.sources.files.redirects import MOST_REDIRECTS, peer_fault, redirect_fault, same_origin

_T = TypeVar("_T")
# Seconds between tries of what may pass, and the longest that a server may ask to wait.
_PAUSES = (0.5, 1.0, 2.0)
_LONGEST_PAUSE = 30
# What huggingface_hub tries again, too.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# Seconds to connect at all, after which nothing is tried again; until an answer's body begins, redirections included; and
# for one answer as a whole, however slowly it drips: so many and one for each so many bytes, up to the last figure.
_CONNECTING = 5
_PATIENCE = 25
_ANSWERING = 60
_BODY = 60
_SLOWEST = 50_000
_DEADLINE = 300
# The facts of a repository: some hundred bytes a file.
_MOST_FACTS = 32 * 2**20
_LONGEST_WORD = 200
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def hub_utilities() -> Any:
    """`huggingface_hub.utils`, which exports what it has for everyone but a type checker."""
    return hub_part("utils")


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
        requests: How many were sent, redirections and repetitions included.
        transferred: Bytes of answers' bodies that were received.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        from lorascope._version import __version__

        self.name = name
        self.revision = revision
        self.requests = 0
        self.transferred = 0
        self._reached = False
        self._counting = threading.Lock()
        # Packed bytes could not be compared with the range that was asked for. Not build_hf_headers: it asks the endpoint, without
        # a bound, for a list of agents and writes that.
        self._headers = {"User-Agent": f"lorascope/{__version__}", "Accept-Encoding": "identity", **_token_header()}

    def facts(self) -> dict[str, Any]:
        """What the Hub's API says of the repository at the revision, sizes of files included.

        Raises:
            UnreachableError: Nothing answers, or only that it cannot now.
            LorascopeError: There is no such repository or revision, or something else answers.
        """
        # https://huggingface.co/docs/hub/api; `blobs` adds the sizes.
        url = f"{hub_part('constants').ENDPOINT}/api/models/{self.name}"
        if self.revision is not None:
            url += f"/revision/{urllib.parse.quote(self.revision, safe='')}"

        def take(response: Any) -> bytes:
            if response.status_code != 200:
                self._refuse(response.status_code, response.headers)
            return self._unpacked(response, "the repository's facts", _MOST_FACTS)

        text = self._patiently(lambda: self._once(f"{url}?blobs=true", {}, take, _MOST_FACTS), threading.Event())
        hint = "Check HF_ENDPOINT, and whether a proxy or a log-in page answers instead of the Hub."
        found = parse_json(text, url, hint)
        if not isinstance(found, dict):
            raise LorascopeError(f"is a {type(found).__name__}, not an object", where=url, hint=hint)
        return found

    def part(self, url: str, span: Span, ended: threading.Event, commit: str = "") -> tuple[bytes, int | None]:
        """Some bytes of a file, fewer where it ends before, and the whole file's size where the server tells it.

        Args:
            url: The file's.
            span: Which bytes, at least one.
            ended: Set when the bytes are no longer wanted: then nothing is tried again.
            commit: The commit that it must be of, where the server says which.

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
            body = self._unpacked(response, f"the bytes of {span.file}", length)
            if len(body) != last - span.start + 1:
                self._refuse_server(f"sends {len(body)} bytes of {span.file} as {quoted(said)}")
            return body, size

        headers = {"Range": f"bytes={span.start}-{span.end - 1}"}
        return self._patiently(lambda: self._once(url, headers, take, length, commit), ended)

    def whole(self, url: str, file: str, commit: str, *, size: int | None, most: int) -> bytes:
        """A small file. It is not kept: nothing that a server names becomes a path.

        Args:
            url: The file's.
            file: Its name.
            commit: The commit that it must be of, where the server says which.
            size: Its bytes by the repository's facts, if they tell.
            most: The most bytes that it may have.

        Raises:
            LorascopeError: It cannot be had, or is not what the facts say.
        """
        expected = most if size is None else size

        def take(response: Any) -> bytes:
            if response.status_code != 200:
                self._refuse(response.status_code, response.headers, file)
            body = self._unpacked(response, file, expected)
            if size is not None and len(body) != size:
                self._refuse_server(f"sends {len(body)} bytes of {file}, which has {size} by the repository's facts")
            return body

        return self._patiently(lambda: self._once(url, {}, take, expected, commit), threading.Event())

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

    def _once(self, url: str, headers: dict[str, str], take: Callable[[Any], _T], length: int, commit: str = "") -> _T:
        """What `take` makes of the answer to one request, once redirections have been followed."""
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2] or quoted(url)
        waiting, answered, begun = _waiting(), threading.Event(), time.monotonic()

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

    def _followed(
        self, url: str, headers: dict[str, str], take: Callable[[Any], _T], answered: threading.Event, commit: str
    ) -> _T:
        target = url
        for _ in range(MOST_REDIRECTS + 1):
            # The token goes to the server that was asked first, and to no other.
            own = self._headers if same_origin(url, target) else _without_token(self._headers)
            waiting = _waiting()
            timeout = (_CONNECTING, waiting, waiting, None)  # to connect, to read, to write, for a free connection
            response: Any = None
            try:
                with (
                    hub_utilities()
                    .get_session()
                    .stream("GET", target, headers={**own, **headers}, timeout=timeout, follow_redirects=False)
                ) as response:
                    self._reached = True
                    fault = "" if target == url else peer_fault(url, response)
                    if fault:
                        self._refuse_server(f"sends a request on to {quoted(target)}, which {fault}")
                    if response.status_code in _PASSING:
                        at = urllib.parse.urlsplit(target).netloc.rpartition("@")[2]
                        said = f"{at} answers with status {response.status_code}"
                        raise _PassingError(said, _asked_pause(response))
                    if same_origin(url, target):
                        self._check_commit(response.headers.get("X-Repo-Commit", ""), commit)
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
        """Where a redirection leads."""
        try:
            target = urllib.parse.urljoin(source, location)
        except ValueError:
            target = location
        fault = "is no address" if not location.isprintable() or not location else redirect_fault(url, target)
        if fault:
            self._refuse_server(f"sends a request on to {quoted(target)}, which {fault}")
        return target

    def _check_commit(self, said: str, commit: str) -> None:
        if commit and said and said != commit:
            self._refuse_server(f"answers of commit {quoted(said)}, not of {commit}")

    def _unpacked(self, response: Any, what: str, most: int) -> bytes:
        """The body of an answer, which must not be packed: a few bytes could become as many as memory has."""
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            self._refuse_server(f"packs {what} though told not to")
        return self._body(response.iter_raw(), most)

    def _body(self, chunks: Iterable[bytes], most: int) -> bytes:
        begun = time.monotonic()
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if len(body) > most:
                self._refuse_server(f"sends more than the {most} bytes that were asked for")
            if time.monotonic() - begun > _longest(most):
                raise _PassingError(f"the server sent {len(body)} bytes in {_longest(most):g} seconds")
        return bytes(body)

    def _refuse_server(self, said: str) -> NoReturn:
        raise self._server_fault(said)

    def _server_fault(self, said: str) -> LorascopeError:
        return LorascopeError(
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
        hint = f"Accept the license at https://huggingface.co/{name}, then: {log_in}"
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


def _longest(length: int) -> float:
    """Seconds for one answer of so many bytes."""
    return min(_DEADLINE, _BODY + length / _SLOWEST)


def _waiting() -> float:
    """Seconds that a server may be silent."""
    constants = hub_part("constants")
    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _token_header() -> dict[str, str]:
    """The user's token, unless huggingface_hub is told to send none unasked."""
    constants = hub_part("constants")
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else hub_utilities().get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _without_token(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in ("authorization", "cookie")}


def _asked_pause(response: Any) -> float:
    """Seconds that a server asks to wait: by `Retry-After`, or by its rate limit where none is left of that."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*", response.headers.get("Retry-After", "")) or re.search(
        r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,6})", response.headers.get("RateLimit", "")
    )
    return float(found[1]) if found else 0.0
