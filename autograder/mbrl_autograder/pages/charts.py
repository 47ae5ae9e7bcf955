"""Small pictures of marks, drawn as SVG by hand: they scale, print, and need no script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .html import count, number, text

# From nothing to all: told apart by lightness, so also in grey and by colour-blind people.
LEVELS = (
    ("no points", "#c9c4bc"),
    ("less than half", "#b5cfe8"),
    ("half or more", "#6ba3d6"),
    ("all points", "#1f5f9e"),
    ("to be marked", "#e8b04a"),
)


def levels(marks: Sequence[float | None], most: float) -> list[int]:
    """How many of `marks` lie in each of LEVELS."""
    counts = [0] * len(LEVELS)
    for mark in marks:
        if mark is None:
            place = 4
        elif mark >= most - 1e-9:
            place = 3
        else:
            place = 0 if mark <= 0 else 1 if mark < most / 2 else 2
        counts[place] += 1
    return counts


def level_bar(counts: Sequence[int]) -> str:
    """One bar, divided into LEVELS, with the numbers of students in it."""
    total = sum(counts) or 1
    parts, start = [], 0.0
    for (name, colour), amount in zip(LEVELS, counts, strict=True):
        width = 100 * amount / total
        if amount:
            parts.append(
                f'<rect x="{start:.2f}%" width="{width:.2f}%" height="20" fill="{colour}">'
                f"<title>{text(name)}: {count(amount, 'student')}</title></rect>"
            )
            if width > 6:
                dark = colour in (LEVELS[2][1], LEVELS[3][1])
                fill = "#fff" if colour == LEVELS[3][1] else "#10202f" if dark else "#222"
                parts.append(
                    f'<text x="{start + width / 2:.2f}%" y="14" text-anchor="middle" '
                    f'style="fill: {fill}">{amount}</text>'
                )
        start += width
    label = ", ".join(f"{name}: {amount}" for (name, _), amount in zip(LEVELS, counts, strict=True) if amount)
    return f'<svg role="img" aria-label="{text(label)}" width="100%" height="20">{"".join(parts)}</svg>'


def legend() -> str:
    """What the colours of `level_bar` mean."""
    items = "".join(
        f'<span><svg width="12" height="12" aria-hidden="true"><rect width="12" height="12" rx="2" '
        f'fill="{colour}"/></svg> {text(name)}</span>'
        for name, colour in LEVELS
    )
    return f'<p class="legend small soft">{items}</p>'


def histogram(totals: Sequence[float], most: float) -> str:
    """How many students have how many points; totals beyond `most` (bonuses) count in the last bar."""
    if not totals or most <= 0:
        return ""
    step = next(size for size in _steps() if size * 10 >= most)  # points per bar
    counts = [0] * math.ceil(most / step)
    for total in totals:
        counts[min(max(int(total / step), 0), len(counts) - 1)] += 1
    left, low, width = 14, 140, 432  # the picture's units; small, so that its text is large
    wide = width / len(counts)
    parts = [f'<line x1="{left}" y1="{low}" x2="{left + width}" y2="{low}" stroke="#8a93a3"/>']
    for index in range(len(counts) + 1):
        x = left + index * wide
        parts.append(f'<text x="{x:.1f}" y="{low + 17}" text-anchor="middle">{number(step * index)}</text>')
        amount = counts[index] if index < len(counts) else 0
        if amount:
            tall = 120 * amount / max(counts)
            parts.append(
                f'<rect x="{x + 2:.1f}" y="{low - tall:.1f}" width="{wide - 4:.1f}" height="{tall:.1f}" '
                f'rx="2" fill="#4a86c5"/><text x="{x + wide / 2:.1f}" y="{low - tall - 5:.1f}" '
                f'text-anchor="middle">{amount}</text>'
            )
    middle, said = left + width / 2, "points (above a bar: students)"
    parts.append(f'<text x="{middle}" y="{low + 36}" text-anchor="middle">{said}</text>')
    label = f"{count(len(totals), 'student')} by points, in steps of {number(step)}"
    return (
        f'<svg role="img" aria-label="{text(label)}" viewBox="0 0 460 182" '
        f'style="width: 100%; max-width: 34rem; height: auto">{"".join(parts)}</svg>'
    )


def _steps() -> Iterator[float]:
    """0.1, 0.2, 0.5, 1, 2, 5, 10 and so on."""
    for power in range(-1, 9):
        yield from (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
