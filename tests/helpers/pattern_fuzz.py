"""Patterns at random, and names on which each of them has the most ways to be tried.

Run with a seed and a number of patterns to match those whose steps are bounded with the longest names that they may be
tried on, and to print how many there were and how long the slowest match took, as JSON.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time

from lorascope.peft_rules.regex_costs import steps_of

_LITERALS = ("a", "b", "q_proj", ".", "layers", "aa", "ab", "proj", "self_attn", "0", "1", "model")
_SINGLES = (".", r"\d", r"\w", "[a-z]", "[^.]", "[0-9]", "a", "b", r"\.", "[a-z_.]", r"\D", r"\S")
_QUANTIFIERS = ("*", "+", "?", "{2}", "{1,3}", "{0,40}", "{2,}", "*?", "+?", "??", "{1,9}?")


def random_pattern(rng: random.Random, depth: int = 0) -> str:
    """A pattern of the kinds that `regex_costs` bounds, and of some that it does not."""
    parts = []
    for _ in range(rng.randint(1, 5)):
        kind = rng.random()
        if kind < 0.4:
            parts.append(re.escape(rng.choice(_LITERALS)))
        elif kind < 0.75:
            parts.append(rng.choice(_SINGLES) + rng.choice(_QUANTIFIERS))
        elif kind < 0.8:
            parts.append(rng.choice(("^", "$", r"\b", r"\B")))
        elif depth < 3:
            opening = rng.choice(("(", "(?:", "(?:", "(", "(?=", "(?!"))
            branches = "|".join(random_pattern(rng, depth + 1) for _ in range(rng.randint(1, 3)))
            closing = rng.choice((")", ")", ")?", ")*")) if opening in ("(", "(?:") else ")"
            parts.append(f"{opening}{branches}{closing}")
    return "".join(parts)


def hard_names(rng: random.Random, pattern: str, length: int) -> list[str]:
    """Names of some length made of what a pattern looks for, over and over."""
    words = [word for word in re.findall(r"[a-z_]+|\d+", pattern) if word] or ["a"]
    one, other = rng.choice(words), rng.choice(words)
    return [
        (unit * length)[: length - 1] + end
        for unit in (one, one + other, f"{one}.", f"{one}.{other}.", "a", "1.", "ab")
        for end in ("!", unit[-1])
    ]


def main(seed: int, count: int) -> None:
    """Match bounded patterns with hard names."""
    rng = random.Random(seed)
    tried, slowest, worst = 0, 0.0, ""
    for _ in range(count):
        pattern = random_pattern(rng)
        steps = steps_of(pattern)
        longest = min(512, steps.longest())
        if longest < 1:
            continue
        try:
            compiled = re.compile(pattern)
        except re.error:
            continue
        tried += 1
        for name in hard_names(rng, pattern, longest):
            begun = time.process_time()
            compiled.match(name)
            compiled.fullmatch(name)
            took = time.process_time() - begun
            if took > slowest:
                slowest, worst = took, pattern
        for name in hard_names(rng, pattern, min(512, steps.longest(search=True))):
            begun = time.process_time()
            compiled.search(name)
            took = time.process_time() - begun
            if took > slowest:
                slowest, worst = took, pattern
    print(json.dumps({"tried": tried, "slowest": slowest, "worst": worst}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
