"""A line plot as SVG, without a library: axes, a line for each series, its name at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 110, 40, 40
COLOURS = ("#1b6ca8", "#c2571a", "#2e8540", "#7b4fa3", "#222222", "#999999")
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of values."""

    name: str
    at: Sequence[float]
    values: Sequence[float]


def plot(title: str, along: str, lines: Sequence[Line]) -> str:
    """Return an SVG document."""
    right = max(max(line.at) for line in lines) or 1.0
    top = max(max(line.values) for line in lines) or 1.0

    def x(value: float) -> float:
        return LEFT + value / right * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for value in _ticks(top):
        parts.append(
            f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>'
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in _ticks(right):
        below = HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{x(value):.1f}" y="{below}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{HEIGHT - BOTTOM + 18}">{escape(along)}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{x(at):.1f},{y(value):.1f}" for at, value in zip(line.at, line.values, strict=True)
        )
        parts.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{y(line.values[-1]) + 4:.1f}" '
            f'fill="{colour}">{escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(end: float) -> list[float]:
    """Return five to ten round numbers from 0 to the end."""
    size = 1e-6
    while True:
        for step in STEPS:
            if end / (size * step) <= 10:
                return [size * step * n for n in range(int(end / (size * step)) + 1)]
        size *= 10
