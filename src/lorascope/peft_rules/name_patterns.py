"""Foreign regular expressions, compiled once and matched within a time limit.

A pattern comes from a configuration, a trainer's file, the command line or the Hub, and Python's `re` may try one for
years. One that provably takes few steps (`regex_costs`) is matched here; every other one in a second process that is
ended with its time (`regex_process`). All patterns of one public verb share one limit.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic

if TYPE_CHECKING:
    from lorascope.model.types import ModelMap
    from lorascope.peft_rules.regex_process import RegexProcess

Verb = TypeVar("Verb", bound=Callable[..., Any])

# Seconds that all matches of one verb may take in the second process.
MOST_SECONDS = 2.0
# Seconds of this process's own time that all others may take, compiling included. Each is short: their number adds up.
MOST_SECONDS_HERE = 8.0
# A string of 20,000 full names has 900,000 letters.
LONGEST_PATTERN = 1_000_000
_MOST_LETTERS = 2_000_000
# Patterns up to this length are kept for the next verb.
_KEPT_LENGTH = 200
_KEPT_ANSWERS = 200_000
_SHOWN_LETTERS = 60
# So many names are matched at once in the second process.
_TOGETHER = 256
_HINT = "Write it without a repeat within a repeat, or list the names of the modules."
_MANY = "Give fewer or shorter patterns, or list the names of the modules."


class BadPatternError(ValueError):
    """A pattern that PEFT stops at.

    Args:
        diagnostic: What is wrong.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic)
        self.diagnostic = diagnostic


class PatternLimitError(LorascopeError):
    """A pattern that is too long or too slow."""


@dataclasses.dataclass(frozen=True, slots=True)
class FarMatch:
    """A match of the second process, like `re.Match`."""

    text: str
    groups: tuple[str | None, ...]
    named: Mapping[str, str | None]

    def group(self, key: int | str = 0, /) -> str | None:
        """The text of a group, by number or name.

        Raises:
            IndexError: There is no such group.
        """
        if isinstance(key, str):
            if key not in self.named:
                raise IndexError("no such group")
            return self.named[key]
        return self.groups[key - 1] if key else self.text


Found = re.Match[str] | FarMatch
Way = Literal["match", "fullmatch", "search"]
Made = TypeVar("Made")


class _Budget:
    """Time that one verb's patterns took, and their matches."""

    __slots__ = ("answers", "expected", "halfway", "here", "kept", "letters", "made", "model", "places", "there")

    def __init__(self) -> None:
        self.here = self.there = 0.0
        # What this process had taken when the patterns had taken half of what they may.
        self.halfway = 0.0
        self.letters = 0
        self.kept: dict[str, Pattern | BadPatternError] = {}
        self.answers: dict[tuple[int, str, str], Found | None] = {}
        # By the identity of a setting, which is kept with it so that no other one can have the same.
        self.made: dict[tuple[int, str], tuple[object, Any]] = {}
        self.model: ModelMap | None = None
        self.expected: Sequence[str] = ()
        self.places: dict[str, int] = {}

    def expect(self, model: ModelMap) -> None:
        """Expect matches with the names of a model's modules."""
        if self.model is not model:
            self.model, self.expected, self.places = model, (), {}

    def together(self, name: str) -> list[str]:
        """A name and the ones expected next."""
        if self.model is not None and not self.expected:
            self.expected = [module.name for module in self.model.modules]
            self.places = {expected: place for place, expected in enumerate(self.expected)}
        place = self.places.get(name, len(self.expected))
        return [name, *self.expected[place + 1 : place + _TOGETHER]]


_BUDGET: ContextVar[_Budget | None] = ContextVar("_BUDGET", default=None)
_NUMBERS = itertools.count(1)


@contextlib.contextmanager
def matching_time() -> Iterator[None]:
    """Share one time limit among all patterns within."""
    if _BUDGET.get() is not None:
        yield
        return
    token = _BUDGET.set(_Budget())
    try:
        yield
    finally:
        _BUDGET.reset(token)


def in_matching_time(verb: Verb) -> Verb:
    """A function whose patterns share one limit."""

    @functools.wraps(verb)
    def limited(*arguments: Any, **options: Any) -> Any:
        with matching_time():
            return verb(*arguments, **options)

    return limited  # type: ignore[return-value]


def expect_names_of(model: ModelMap) -> None:
    """Announce the names to match, so the second process gets many at once."""
    budget = _BUDGET.get()
    if budget is not None:
        budget.expect(model)


def made_once(setting: object, use: str, make: Callable[[], Made]) -> Made:
    """Make something of a setting once per verb."""
    budget = _BUDGET.get()
    if budget is None:
        return make()
    key = (id(setting), use)
    if key not in budget.made:
        budget.made[key] = (setting, make())
    made: Made = budget.made[key][1]
    return made


def _way(way: Way) -> Callable[[Pattern, str], Found | None]:
    """The method of `re.Pattern` of that name, within the limits."""

    def tried(pattern: Pattern, name: str) -> Found | None:
        if pattern.here is None or len(name) > (pattern.longest_search if way == "search" else pattern.longest):
            return _elsewhere(pattern, way, name)
        begun = time.perf_counter()
        match: Found | None = getattr(pattern.here, way)(name)
        charge(pattern, begun)
        return match

    return tried


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A compiled regular expression; each match may raise PatternLimitError.

    Attributes:
        pattern: Its text.
        where: The setting that it stands in, for messages.
        number: Its own, by which the second process knows it.
        here: Compiled in this process; None where that may take long.
        longest: The longest name that is matched in this process; -1 where nothing bounds its steps.
        longest_search: The same for `search`.
    """

    pattern: str
    where: str
    number: int
    here: re.Pattern[str] | None
    longest: int
    longest_search: int

    match = _way("match")
    fullmatch = _way("fullmatch")
    search = _way("search")


def compiled(text: str, where: str = "") -> Pattern:
    """Compile a regular expression, to be matched within the limits.

    Args:
        text: The expression.
        where: The setting that it stands in, for messages.

    Raises:
        BadPatternError: It is none.
        PatternLimitError: It is too long, or takes too long to compile.
    """
    budget = _BUDGET.get()
    kept = budget.kept.get(text) if budget is not None else None
    if kept is None:
        if budget is not None:
            budget.letters += len(text)
            if budget.letters > _MOST_LETTERS:
                raise PatternLimitError(
                    f"the patterns have more than {_MOST_LETTERS:,} letters together", where=where, hint=_MANY
                )
        kept = _short(text) if len(text) <= _KEPT_LENGTH else _read(text, where)
        if budget is not None:
            budget.kept[text] = kept
    if isinstance(kept, BadPatternError):
        raise BadPatternError(kept.diagnostic)
    if kept.where == where:
        return kept
    return Pattern(text, where, kept.number, kept.here, kept.longest, kept.longest_search)


def cheap_matches(text: str, names: Iterable[str], way: Way) -> list[str]:
    """Names that our own pattern matches; none if it may take long.

    PEFT does not try such a pattern, so that its time must not keep anybody from knowing what PEFT does.
    """
    from lorascope.peft_rules.regex_costs import steps_of

    try:
        pattern = compiled(text) if steps_of(text).longest() >= 0 else None
    except (BadPatternError, PatternLimitError):
        return []
    if pattern is None:
        return []
    longest = pattern.longest_search if way == "search" else pattern.longest
    tried = getattr(pattern, way)
    return [name for name in names if len(name) <= longest and tried(name)]


def _read(text: str, where: str) -> Pattern | BadPatternError:
    if len(text) > LONGEST_PATTERN:
        raise PatternLimitError(
            f"a pattern is too long: {_shown(text)} has {len(text):,} letters, and {LONGEST_PATTERN:,} are read",
            where=where,
            hint="List the names of the modules instead.",
        )
    from lorascope.peft_rules.regex_costs import compiles_at_once, steps_of  # which a list of names does not need

    begun = time.perf_counter()
    steps = steps_of(text)
    longest = steps.longest()
    here = None
    if longest >= 0 or compiles_at_once(text):
        try:
            here = re.compile(text)
        except (re.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
            return _bad(text, type(error).__name__, str(error))
    pattern = Pattern(text, where, next(_NUMBERS), here, longest, steps.longest(search=True))
    charge(pattern, begun)
    if here is None:
        try:
            _ask(pattern, "match", ())
        except BadPatternError as error:
            return error
    return pattern


@functools.lru_cache(maxsize=16_384)
def _short(text: str) -> Pattern | BadPatternError:
    return _read(text, "")


def _bad(text: str, kind: str, reason: str) -> BadPatternError:
    why = {
        "RecursionError": "its groups are nested too deep",
        "MemoryError": "it takes more memory than there is",
    }.get(kind, reason)
    shown = f'"{text}"' if len(text) <= _KEPT_LENGTH else _shown(text)
    return BadPatternError(reasons.BAD_PATTERN.about(pattern=shown, why=why))


def _shown(text: str) -> str:
    return quoted(text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…")


def charge(pattern: Pattern, begun: float) -> None:
    """Charge the time since `begun` (`time.perf_counter`) to the verb's patterns.

    Raises:
        PatternLimitError: That is more than they may take.
    """
    charge_for(pattern.pattern, pattern.where, begun)


def charge_for(text: str, where: str, begun: float) -> None:
    """Charge a search for plain texts, as `charge` does.

    Args:
        text: The last of them.
        where: The setting that they stand in.
        begun: When that began, by `time.perf_counter`.

    Raises:
        PatternLimitError: That is more than they may take.
    """
    budget = _BUDGET.get()
    if budget is None:
        return
    budget.here += time.perf_counter() - begun
    # On a busy machine much of that is others' time: what the whole process took since is no less than the patterns'.
    if budget.here > MOST_SECONDS_HERE / 2 and not budget.halfway:
        budget.halfway = time.process_time()
    if budget.here > MOST_SECONDS_HERE and time.process_time() - budget.halfway > MOST_SECONDS_HERE / 2:
        raise PatternLimitError(
            f"the patterns take too long together, the last of them {_shown(text)} (limit {MOST_SECONDS_HERE:g} s)",
            where=where,
            hint=_MANY,
        )


def _elsewhere(pattern: Pattern, way: Way, name: str) -> Found | None:
    """Match a name in the second process."""
    budget = _BUDGET.get()
    if budget is None:
        return _ask(pattern, way, (name,))[0]
    key = (pattern.number, way, name)
    if key in budget.answers:
        return budget.answers[key]
    if len(budget.answers) > _KEPT_ANSWERS:
        budget.answers.clear()
    names = budget.together(name)
    matches = _ask(pattern, way, names)
    budget.answers.update(
        ((pattern.number, way, expected), match) for expected, match in zip(names, matches, strict=False)
    )
    return matches[0]


def _ask(pattern: Pattern, way: Way, names: Sequence[str]) -> list[Found | None]:
    """Match some names in the second process, or only the first if slow.

    Raises:
        BadPatternError: It is not a regular expression.
        PatternLimitError: It takes too long.
    """
    from lorascope.peft_rules.regex_process import NoProcessError  # with `subprocess`, which few patterns need

    budget = _BUDGET.get() or _Budget()
    answer = None
    # The others may take long where the first does not, and nobody has asked for them yet.
    for batch, share in ((names, 0.5), (names[:1], 1.0)) if len(names) > 1 else ((names, 1.0),):
        left = (MOST_SECONDS - budget.there) * share
        if left <= 0:
            break
        try:
            answer = _process().ask(pattern.number, pattern.pattern, way, batch, left)
        except NoProcessError as error:
            raise PatternLimitError(
                f"a pattern can be tried in a second Python only, which does not start: {_shown(pattern.pattern)}",
                where=pattern.where,
                hint=_HINT,
            ) from error
        budget.there += left if answer is None else answer["seconds"]
        if answer is not None:
            break
    if answer is None:
        budget.there = MOST_SECONDS
        on = f" on {quoted(names[0])}" if names else ""
        raise PatternLimitError(
            f"a pattern takes too long: {_shown(pattern.pattern)}{on} (limit {MOST_SECONDS:g} s)",
            where=pattern.where,
            hint=_HINT,
        )
    if "fault" in answer:
        raise _bad(pattern.pattern, answer["kind"], answer["fault"])
    return [match and FarMatch(match[0], tuple(match[1]), match[2]) for match in answer["found"]]


@functools.cache
def _process() -> RegexProcess:
    from lorascope.peft_rules.regex_process import RegexProcess

    return RegexProcess()


def processes_started() -> int:
    """How often the second process was started so far."""
    return _process().started
