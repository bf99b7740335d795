"""Counts, shares and bytes as people write them."""

from __future__ import annotations

from collections.abc import Iterable

_BYTES = ((10**12, 2, "TB"), (10**9, 2, "GB"), (10**6, 1, "MB"), (10**3, 1, "kB"))


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
    ['0 %', '<0.01 %', '7.37 %', '50.0 %', '>99.9 %', '100 %', '1,250 %']
    """
    number = 100 * share
    if 0 < number < 0.01:
        return "<0.01 %"
    if 99.9 < number < 100:
        return ">99.9 %"
    return f"{number:#.3g} %" if 0 < number < 100 else f"{number:,.0f} %"


def bytes_text(count: int) -> str:
    """Bytes in powers of ten: 812 B, 4.2 kB, 24.00 GB."""
    for size, digits, unit in _BYTES:
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} B"


def bytes_column(counts: Iterable[int]) -> tuple[str, list[str]]:
    """One unit for a column of bytes, and each count in it.

    >>> bytes_column([13_600_000_000, 4_000_000, 0])
    ('GB', ['13.60', '<0.01', '0'])
    """
    numbers = list(counts)
    size, digits, unit = next((row for row in _BYTES if max(numbers, default=0) >= row[0]), (1, 0, "B"))
    least = 10**-digits
    return unit, [
        f"<{least:g}" if 0 < number < size * least else f"{number / size:,.{digits}f}" if number else "0"
        for number in numbers
    ]
