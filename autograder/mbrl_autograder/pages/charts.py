"""Small pictures of marks, drawn as SVG by hand: they scale, print, and need no script."""

from __future__ import annotations

from collections.abc import Sequence

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


def histogram(totals: Sequence[float], most: float, bins: int = 10) -> str:
    """How many students have how many points; totals beyond `most` (bonuses) count in the last bar."""
    if not totals or most <= 0:
        return ""
    counts = [0] * bins
    for total in totals:
        counts[min(max(int(bins * total / most), 0), bins - 1)] += 1
    width, height, left, low, step = 640, 190, 34, 150, 60
    top = max(counts)
    parts = [f'<line x1="{left}" y1="{low}" x2="{left + bins * step}" y2="{low}" stroke="#8a93a3"/>']
    for index, amount in enumerate(counts):
        tall = 120 * amount / top
        x = left + index * step
        if amount:
            parts.append(
                f'<rect x="{x + 3}" y="{low - tall:.1f}" width="{step - 6}" height="{tall:.1f}" rx="2" '
                f'fill="#4a86c5"/><text x="{x + step / 2}" y="{low - tall - 5:.1f}" '
                f'text-anchor="middle">{amount}</text>'
            )
        parts.append(
            f'<text x="{x}" y="{low + 16}" text-anchor="middle">{number(most * index / bins)}</text>'
        )
    end = left + bins * step
    parts.append(f'<text x="{end}" y="{low + 16}" text-anchor="end">{number(most)}</text>')
    parts.append(f'<text x="{left + bins * step / 2}" y="{low + 34}" text-anchor="middle">points</text>')
    label = f"{count(len(totals), 'student')} by points, {bins} steps from 0 to {number(most)}"
    return (
        f'<svg role="img" aria-label="{text(label)}" viewBox="0 0 {width} {height}" '
        f'style="width: 100%; max-width: 40rem; height: auto">{"".join(parts)}</svg>'
    )
