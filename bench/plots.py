"""Bar charts as SVG, written by hand: no library is needed for a few rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _ROW, _GAP = 720, 210, 90, 22, 12
_INK = "#0f172a"
_COLOURS = {"livedocs": "#0f766e", "node": "#d97706", "pymongo": "#6366f1", "motor": "#94a3b8"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: left of it.
        system: decides its colour.
        value: its length.
        low: least value of a round.
        high: greatest value of a round.
    """

    label: str
    system: str
    value: float
    low: float
    high: float


def chart(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """A horizontal bar chart; the thin line in a bar spans the rounds."""
    most = max((bar.high for bar in bars), default=1.0) or 1.0
    height = 56 + len(bars) * (_ROW + _GAP)
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"',
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="600" fill="{_INK}">{escape(title)}</text>',
        f'<text x="{_WIDTH - 12}" y="24" text-anchor="end" fill="#475569">{escape(unit)}</text>',
    ]
    for number, bar in enumerate(bars):
        parts += _row(bar, 44 + number * (_ROW + _GAP), scale)
    return "\n".join([*parts, "</svg>", ""])


def _row(bar: Bar, top: int, scale: float) -> list[str]:
    middle, base = top + _ROW // 2, top + _ROW // 2 + 5
    low, high = _LEFT + bar.low * scale, _LEFT + bar.high * scale
    colour = _COLOURS.get(bar.system, "#64748b")
    length = max(1.0, bar.value * scale)
    return [
        f'<text x="{_LEFT - 10}" y="{base}" text-anchor="end" fill="{_INK}">{escape(bar.label)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_ROW}" rx="3" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_INK}" stroke-width="1.5"/>',
        f'<text x="{high + 8:.1f}" y="{base}" fill="{_INK}">{bar.value:,.4g}</text>',
    ]
