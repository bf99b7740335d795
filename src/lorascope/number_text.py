"""Counts and shares as people write them."""

from __future__ import annotations


def count_text(count: int) -> str:
    """A count in its largest unit: 812, 4.2K, 20.0M, 7.24B."""
    for size, digits, unit in ((10**12, 2, "T"), (10**9, 2, "B"), (10**6, 1, "M"), (10**3, 1, "K")):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return str(count)


def percent(part: int, whole: int) -> str:
    """A part of a whole in percent, see `share_text`; `0 %` of nothing."""
    return share_text(part / whole if whole else 0.0)


def share_text(share: float) -> str:
    """A share in percent, three digits of it: 7.37 %. Only exact ones are `0 %` and `100 %`.

    >>> [share_text(share) for share in (0, 1e-6, 0.0737, 0.5, 0.9999, 1, 12.5)]
    ['0 %', '<0.01 %', '7.37 %', '50 %', '>99.9 %', '100 %', '1,250 %']
    """
    number = 100 * share
    if 0 < number < 0.01:
        return "<0.01 %"
    if 99.9 < number < 100:
        return ">99.9 %"
    return f"{number:,.0f} %" if number >= 100 else f"{number:.3g} %"
