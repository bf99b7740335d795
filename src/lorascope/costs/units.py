"""Bytes as people write them."""

from __future__ import annotations

from collections.abc import Iterable

_UNITS = ((10**12, 2, "TB"), (10**9, 2, "GB"), (10**6, 1, "MB"), (10**3, 1, "kB"))


def bytes_text(count: int) -> str:
    """Bytes in powers of ten: 812 B, 4.2 kB, 24.00 GB."""
    for size, digits, unit in _UNITS:
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} B"


def bytes_column(counts: Iterable[int]) -> tuple[str, list[str]]:
    """Unit of the largest count, and every count in it: what is less than the last digit is `<0.01`."""
    numbers = list(counts)
    size, digits, unit = next((row for row in _UNITS if max(numbers, default=0) >= row[0]), (1, 0, "B"))
    least = 10**-digits
    return unit, [
        f"<{least:g}" if 0 < number < size * least else f"{number / size:,.{digits}f}" if number else "0"
        for number in numbers
    ]
