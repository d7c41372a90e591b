"""A picture of each kind of work: bars, ours and the others', written as SVG by hand.

The bars of one work are drawn relative to the longest of them, since works differ in their units.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.figure import Figure

COLOURS: Final = ("#1f6f8b", "#7fb7be", "#c9822b", "#8a8a8a")
LABEL_WIDTH: Final = 330
BAR_WIDTH: Final = 420
VALUE_WIDTH: Final = 110
BAR_HEIGHT: Final = 14
GAP: Final = 12
TOP: Final = 52


def picture(title: str, figures: Sequence[Figure]) -> str:
    """Return an SVG with the bars of one kind of work."""
    servers = list(dict.fromkeys(figure.server for figure in figures))
    works = list(dict.fromkeys(figure.work for figure in figures))
    pieces = [*_legend(title, servers)]
    y = TOP
    for work in works:
        of_work = [figure for figure in figures if figure.work == work]
        longest = max(figure.value for figure in of_work) or 1.0
        middle = y + len(of_work) * BAR_HEIGHT / 2 + 4
        pieces.append(_text(LABEL_WIDTH - 8, middle, work, "end"))
        for figure in of_work:
            colour = COLOURS[servers.index(figure.server) % len(COLOURS)]
            width = max(1.0, figure.value / longest * BAR_WIDTH)
            pieces.append(
                f'<rect x="{LABEL_WIDTH}" y="{y:.0f}" width="{width:.1f}" '
                f'height="{BAR_HEIGHT - 2}" fill="{colour}"/>'
            )
            said = f"{figure.value:.4g} {figure.unit}"
            pieces.append(_text(LABEL_WIDTH + width + 5, y + BAR_HEIGHT - 4, said))
            y += BAR_HEIGHT
        y += GAP
    width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y:.0f}" '
        f'viewBox="0 0 {width} {y:.0f}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{y:.0f}" fill="#ffffff"/>\n'
        + "\n".join(pieces)
        + "\n</svg>\n"
    )


def _legend(title: str, servers: Sequence[str]) -> list[str]:
    pieces = [f'<g font-size="14" font-weight="bold">{_text(12, 20, title)}</g>']
    x = LABEL_WIDTH
    for number, server in enumerate(servers):
        colour = COLOURS[number % len(COLOURS)]
        pieces.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/>')
        pieces.append(_text(x + 14, 39, server))
        x += 30 + 7 * len(server)
    return pieces


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="#222222">{escape(said)}</text>'
    )
