"""`check` of a configuration whose `rank_pattern` has thousands of regular expressions: the time must be linear.

Needs nothing. Prints a Markdown table of whole processes, and of a process that only compiles the same keys.
"""

from __future__ import annotations

from processes import Cost, Process, measure, parse_options, python

COUNTS = (1_000, 2_000, 4_000, 10_000)
# Time per key at the largest count, over that at the smallest.
MOST_GROWTH = 1.25
_KEYS = r"""
import sys
keys = {rf"model\.layers\.{layer}\.(self_attn|mlp)\.(q|k|v)_proj": 4 for layer in range(int(sys.argv[1]))}
"""
_CHECK = f"""{_KEYS}
import lorascope
check = lorascope.check(lorascope.inspect("mistral"), {{"target_modules": ["q_proj"], "rank_pattern": keys}})
assert [target.rank for target in check.resolution.adapted] == [4 if keys else 8] * 32
"""
_COMPILE = f"{_KEYS}\nimport re\nfor key in keys: re.compile(rf'(.*\\.)?({{key}})$')"


def main() -> None:
    options = parse_options(__doc__)
    rows = {f"{name}, {count} keys": (name, count) for count in (0, *COUNTS) for name in ("check", "re.compile")}
    codes = {"check": _CHECK, "re.compile": _COMPILE}
    costs = measure({title: Process(python(codes[name], str(count))) for title, (name, count) in rows.items()}, options)
    per_key: dict[tuple[str, int], float] = {}
    unit, digits = ("instructions, M", 1e6) if options.instructions else ("processor, ms", 1e-3)
    print(
        f"| process | {unit} | bare Python = 1 | per key, {'thousands' if options.instructions else 'µs'} |\n|---|---|---|---|"
    )
    for title, (name, count) in rows.items():
        cost, base = costs[title], costs[f"{name}, 0 keys"]
        assert isinstance(cost, Cost)
        assert isinstance(base, Cost)
        if count:
            per_key[name, count] = 1000 * (cost.amount - base.amount) / digits / count
        shown = f"{per_key[name, count]:.0f}" if count else ""
        print(f"| {title} | {cost.amount / digits:.0f} | {cost.ratio:.1f} | {shown} |")
    growth = per_key["check", COUNTS[-1]] / per_key["check", COUNTS[0]]
    verdict = "linear" if growth <= MOST_GROWTH else "NOT linear"
    print(f"\nper key, {COUNTS[-1]} against {COUNTS[0]} keys: {growth:.2f}, {verdict}")


if __name__ == "__main__":
    main()
