"""A run as a picture: one HTML file with an SVG, without anything from elsewhere. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from rig.checker import Verdict
from rig.recording import Answered, Connection, Delivered, Recording, Told
from rig.world import World

_WIDTH, _LEFT, _ROW = 1500, 190, 15
_PLOT = _WIDTH - _LEFT - 20
_STYLE = """
body{font:13px/1.5 system-ui,sans-serif;margin:24px;color:#1b2430;background:#fff}
h1{font-size:18px} pre{background:#f4f6f8;padding:10px;overflow:auto} svg{border:1px solid #d5dbe1}
text{font:10px system-ui,sans-serif;fill:#3a4653} .bad{color:#b00020}
.key{display:inline-block;width:12px;height:12px}
"""
_LEGEND = (
    ("#c9dcf2", "connected"),
    ("#2f6db3", "events received (darker: more)"),
    ("#2a9d5c", "joined or resumed"),
    ("#d62839", "$revoked"),
    ("#f0a202", "$resync"),
    ("#7b2cbf", "refused: unavailable"),
    ("#f6c9cd", "fault"),
)


def page(recording: Recording, world: World, verdict: Verdict, figures: Mapping[str, Any], title: str) -> str:
    """The HTML page."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        "<p>",
        *(
            f'<span class="key" style="background:{color}"></span> {escape(text)} &nbsp; '
            for color, text in _LEGEND
        ),
        "</p>",
        *_picture(recording, world),
        f"<h2>Violations: {len(verdict.violations)}</h2>",
        *(f'<p class="bad">{escape(str(violation)[:600])}</p>' for violation in verdict.violations[:100]),
        "<h2>Figures</h2><pre>",
        *(f"{escape(name)}: {escape(str(value))}\n" for name, value in figures.items()),
        "</pre></html>",
    ]
    return "".join(parts)


class _Scale:
    """Times to places."""

    def __init__(self, recording: Recording) -> None:
        times = [connection.began for connection in recording.connections] or [0.0]
        last = [entry.at for connection in recording.connections for entry in connection.entries[-1:]] or [1.0]
        faults = [fault.ended for fault in recording.faults]
        self.begin = min(times) - 1
        self.end = max([*last, *faults]) + 1

    def x(self, at: float) -> float:
        return _LEFT + (at - self.begin) / (self.end - self.begin) * _PLOT


def _picture(recording: Recording, world: World) -> Iterator[str]:
    scale = _Scale(recording)
    people: dict[str, list[Connection]] = {}
    for connection in recording.connections:
        people.setdefault(f"{connection.who.tenant} {connection.who.subject}", []).append(connection)
    lanes = [(name, lane) for name in sorted(people) for lane in _lanes(people[name])]
    top = 130
    height = top + len(lanes) * _ROW + 30
    yield f'<svg width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
    yield from _faults(recording, scale, height)
    yield from _rates(recording, world, scale, top)
    for index, (name, lane) in enumerate(lanes):
        y = top + index * _ROW
        yield f'<text x="6" y="{y + 10}">{escape(name)}</text>'
        for connection in lane:
            yield from _connection(connection, scale, y)
    yield from _axis(scale, height)
    yield "</svg>"


def _lanes(connections: list[Connection]) -> list[list[Connection]]:
    """Connections one after the other in a row, more rows where they overlap."""
    lanes: list[list[Connection]] = []
    for connection in sorted(connections, key=lambda each: each.began):
        for lane in lanes:
            if (lane[-1].ended or float("inf")) <= connection.began:
                lane.append(connection)
                break
        else:
            lanes.append([connection])
    return lanes


def _faults(recording: Recording, scale: _Scale, height: int) -> Iterator[str]:
    for index, fault in enumerate(recording.faults):
        x, width = scale.x(fault.began), max(2.0, scale.x(fault.ended) - scale.x(fault.began))
        label = escape(f"{fault.name} {fault.detail}".strip())
        y = 12 + index % 4 * 12
        title = f"{label} {fault.ended - fault.began:.1f} s"
        yield _box(x, 4, width, height - 24, "#d62839", opacity=0.16, title=title)
        yield f'<text x="{x:.1f}" y="{y}">{label}</text>'


def _box(
    x: float, y: float, width: float, height: float, color: str, *, opacity: float = 1.0, title: str = ""
) -> str:
    label = f"<title>{title}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{color}" opacity="{opacity:.2f}">'
        f"{label}</rect>"
    )


def _rates(recording: Recording, world: World, scale: _Scale, top: int) -> Iterator[str]:
    """Commits, deliveries and revokes a second."""
    commits = Counter(
        int(event.wall - recording.epoch - scale.begin) for events in world.events.values() for event in events
    )
    arrived = Counter(
        int(entry.at - scale.begin)
        for connection in recording.connections
        for entry in connection.entries
        if isinstance(entry, Delivered)
    )
    most = max([*commits.values(), *arrived.values()], default=1)
    for counts, color, name in ((arrived, "#2f6db3", "received"), (commits, "#1b2430", "committed")):
        points = " ".join(
            f"{scale.x(scale.begin + second + 0.5):.1f},{top - 8 - counts[second] / most * 62:.1f}"
            for second in range(int(scale.end - scale.begin))
        )
        yield f'<polyline points="{points}" fill="none" stroke="{color}"><title>{name} a second</title></polyline>'
    yield f'<text x="6" y="{top - 40}" fill="#2f6db3">events a second (most {most}):</text>'
    yield f'<text x="6" y="{top - 28}">blue received, black committed</text>'


def _connection(connection: Connection, scale: _Scale, y: int) -> Iterator[str]:
    begin, end = scale.x(connection.began), scale.x(connection.ended or scale.end)
    title = escape(f"#{connection.number} on {connection.process} {connection.why}")
    yield _box(begin, y + 2, max(1.0, end - begin), _ROW - 4, "#c9dcf2", title=title)
    ticks = Counter(int(scale.x(entry.at) / 2) for entry in connection.entries if isinstance(entry, Delivered))
    for place, count in ticks.items():
        yield _box(place * 2, y + 4, 2, _ROW - 8, "#2f6db3", opacity=min(1.0, 0.25 + count / 12))
    for entry in connection.entries:
        color = None
        if isinstance(entry, Told):
            color = {"$revoked": "#d62839", "$resync": "#f0a202"}.get(entry.name)
        elif isinstance(entry, Answered) and isinstance(entry.body, dict):
            if entry.body.get("joined"):
                color = "#2a9d5c"
            elif any(item.get("code") == "unavailable" for item in entry.body.get("refused", {}).values()):
                color = "#7b2cbf"
        if color is not None:
            yield _box(scale.x(entry.at), y + 1, 1.6, _ROW - 2, color)


def _axis(scale: _Scale, height: int) -> Iterator[str]:
    length = scale.end - scale.begin
    step = next((step for step in (1, 2, 5, 10, 20, 60, 120, 300) if length / step <= 30), 600)
    for second in range(0, int(length) + 1, step):
        x = scale.x(scale.begin + second)
        yield f'<text x="{x:.1f}" y="{height - 8}">{second} s</text>'
