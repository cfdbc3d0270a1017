"""Curves as SVG: over the images shown, with the phases of growing behind them; coloured by the page's own style."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from markupsafe import escape as escaped

from progan.evaluation.meter import number
from progan.support.terminal import cleaned
from progan.view.runs import thinned

Phases = Sequence[Mapping[str, Any]]  # as `runs.details` gives them: start, stop, resolution, fading

WIDTH, HEIGHT = 400, 216  # in units of the drawing, which the page shows as pixels or nearly
TOP, BOTTOM, LEFT = 8, 22, 46
RULER = 16  # of a row that names the phases
LETTER = 6.2  # width of one, of those 11 units high
LOGARITHMIC = 20  # times the least value that the largest is, from which on a linear axis would hide the rest
NUMBERS = 100  # lines of a table
COLOURS = 6
DOTS = 40  # points, up to which each is marked


@dataclass(frozen=True)
class Line:
    """One curve. x: images shown, or what else lies below; y: values, None where there is none.

    label: at its end, before the last value; spread: of each value; floor: what reals have, dashed.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    spread: Sequence[float | None] = ()
    floor: float | None = None

    def points(self) -> list[tuple[float, float, float]]:
        """(x, y, spread) where there is a value."""
        spread = self.spread or [None] * len(self.x)
        return [
            (x, y, abs(s or 0.0))
            for x, y, s in zip(self.x, self.y, spread, strict=True)
            if x is not None and y is not None
        ]


def kimg(nimg: float) -> str:
    """Thousand images, as exact as they were counted: '36', '0.096'."""
    return f"{nimg / 1000:,.10g}"


def plotted(title: str, lines: Sequence[Line], rulers: Mapping[str, Phases], unit: str = "kimg") -> dict[str, Any]:
    """A drawing and the numbers that it shows: {"title", "svg", "unit", "heads", "rows", "count"}.

    rows: (x, [(value, spread) or None for each line]), at most NUMBERS of the `count` that there are.
    """
    lines = [line for line in lines if line.points()]
    at: dict[float, list[Any]] = {}
    for i, line in enumerate(lines):
        for x, y, spread in line.points():
            at.setdefault(x, [None] * len(lines))[i] = (y, spread)
    svg = draw(title, lines, rulers, unit=unit)
    about = {"title": title, "svg": svg, "unit": unit, "heads": [line.label or "value" for line in lines]}
    return about | {"rows": thinned(sorted(at.items()), NUMBERS), "count": len(at)}


def summary(title: str, lines: Iterable[Line], *, unit: str = "kimg") -> str:
    """A curve in words, for who cannot see it."""
    told = []
    for line in lines:
        if points := line.points():
            (x0, first, _), (x1, last, _) = points[0], points[-1]
            least, most = min(y for _, y, _ in points), max(y for _, y, _ in points)
            text = f"from {number(first)} at {_at(x0, unit)} to {number(last)} at {_at(x1, unit)}"
            text += f", between {number(least)} and {number(most)}"
            text += "" if line.floor is None else f"; reals {number(line.floor)}"
            told.append(f"{line.label}: {text}" if line.label else text)
    return f"{title}: {'; '.join(told) or 'no values'}"


def draw(title: str, lines: Sequence[Line], rulers: Mapping[str, Phases], *, unit: str = "kimg") -> Markup:
    """The curves in one SVG element, which says in words what it shows.

    rulers: label -> phases. Those of one run are bands behind the curves; of several, rows above them. unit: of x, kimg
    for images shown. The y axis is logarithmic when all is above 0 and some is LOGARITHMIC times as much as other.
    """
    points = [line.points() for line in lines]
    every = [point for of_line in points for point in of_line]
    top = TOP + RULER * max(1, len(rulers)) if rulers else TOP
    shown = _escape(summary(title, lines, unit=unit))
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{shown}">'
    if not every:
        return Markup(f'{head}<text x="{WIDTH // 2}" y="{HEIGHT // 2}" class="middle">no values</text></svg>')
    ends = [f"{line.label} {number(p[-1][1])}".strip() if p else "" for line, p in zip(lines, points, strict=True)]
    right = WIDTH - 10 - 1.1 * LETTER * max(map(len, ends))  # bold ones
    x = _Axis(min(0.0, *(p[0] for p in every)), max(p[0] for p in every), LEFT, right)
    y = _value_axis(every, [line.floor for line in lines if line.floor is not None], HEIGHT - BOTTOM, top)
    parts = [head]
    for row, (label, phases) in enumerate(rulers.items()):
        parts += _phases(phases, x, TOP + RULER * row, label, band=HEIGHT - BOTTOM if len(rulers) == 1 else None)
    for value in y.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{right:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" class="end">{_tick(value)}</text>')
    scale = 1000 if unit == "kimg" else 1
    for value in x.ticks(scale):
        at = f'x="{x(value):.1f}" y="{HEIGHT - 6}"'
        parts.append(f'<text {at} class="middle">{_tick(value / scale)}</text>')
    parts.append(f'<text x="{WIDTH - 2}" y="{HEIGHT - 6}" class="end">{_escape(unit)}</text>')
    for place, (line, of_line) in enumerate(zip(lines, points, strict=True)):
        parts += _line(line, of_line, x, y, right, place % COLOURS)
    last = [
        (y(of_line[-1][1]) if of_line else 0.0, text, i % COLOURS)
        for i, (of_line, text) in enumerate(zip(points, ends, strict=True))
    ]
    parts += _ends([end for end in last if end[1]], right, top)
    return Markup("".join(parts) + "</svg>")


@dataclass(frozen=True)
class _Axis:
    """Values to places: start to stop lie between `begin` and `end`."""

    start: float
    stop: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        start, stop, at = (math.log(v) if self.logarithmic else v for v in (self.start, self.stop, value))
        return self.begin + (self.end - self.begin) * ((at - start) / (stop - start) if stop > start else 0.5)

    def ticks(self, scale: float = 1.0) -> list[float]:
        """About four round values, in multiples of `scale`."""
        if not self.logarithmic:
            step = _round_up((self.stop - self.start) / scale / 4.5) * scale
            first, last = math.ceil(self.start / step - 1e-9), math.floor(self.stop / step + 1e-9)
            return [i * step for i in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.start)), math.ceil(math.log10(self.stop)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**power for power in decades for d in digits if self.start <= d * 10.0**power <= self.stop]
            if len(found) <= 6:
                break
        return found[:: max(1, len(found) // 5)]


def _value_axis(
    points: Sequence[tuple[float, float, float]], floors: Sequence[float], begin: float, end: float
) -> _Axis:
    values = [y for _, y, _ in points] + list(floors)
    least, most = min(values), max(values)
    if least > 0 and most >= LOGARITHMIC * least:
        return _Axis(least / 1.15, most * 1.15, begin, end, logarithmic=True)
    low, high = (f(y + sign * s for _, y, s in points) for f, sign in ((min, -1), (max, 1)))
    low, high = min(low, least), max(high, most)
    if low > 0 and low < 0.6 * high:  # a scale that begins at 0 where that costs little
        low = 0.0
    room = (high - low) * 0.06
    return _Axis(low - room if low else 0.0, high + room, begin, end)


def _line(
    line: Line, points: Sequence[tuple[float, float, float]], x: _Axis, y: _Axis, right: float, place: int
) -> Iterable[str]:
    if not points:
        return
    low = y.start if y.logarithmic else -math.inf
    if any(s for *_, s in points):
        above = [f"{x(at):.1f} {y(value + s):.1f}" for at, value, s in points]
        below = [f"{x(at):.1f} {y(max(low, value - s)):.1f}" for at, value, s in reversed(points)]
        yield f'<path class="spread line{place}" d="M{"L".join(above + below)}Z"/>'
    if line.floor is not None:
        yield f'<path class="floor line{place}" d="M{LEFT} {y(line.floor):.1f}H{right:.1f}"/>'
    there = {at for at, *_ in points}
    path = "".join(
        f"{'M' if start else 'L'}{x(at):.1f} {y(value):.1f}"
        for (at, value, _), start in zip(points, _starts(line, there), strict=True)
    )
    yield f'<path class="curve line{place}" d="{path}"/>'
    for at, value, _ in points if len(points) <= DOTS else points[-1:]:
        yield f'<circle class="dot line{place}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2"/>'


def _starts(line: Line, there: set[float]) -> Iterable[bool]:
    """For each point with a value, whether the one before it has none."""
    before = False
    for at, value in zip(line.x, line.y, strict=True):
        if value is not None and at in there:
            yield not before
        before = value is not None


def _phases(phases: Phases, x: _Axis, top: int, label: str, band: float | None) -> Iterable[str]:
    """A row with the resolutions, and where new blocks fade in; `band`: down to where those lie behind the curves."""
    bottom = top + RULER - 4 if band is None else band
    named: dict[int, tuple[float, float]] = {}
    for phase in phases:
        start, stop = (min(max(phase[key], x.start), x.stop) for key in ("start", "stop"))
        if stop <= start:
            continue
        if phase["fading"]:
            yield f'<path class="fade" d="M{x(start):.1f} {top}H{x(stop):.1f}V{bottom:.1f}H{x(start):.1f}Z"/>'
        if not phase["fading"] or phase["resolution"] not in named:
            named[phase["resolution"]] = (x(start), x(stop))
    free = 0.0
    for resolution, (start, stop) in named.items():
        long, short, middle = f"{resolution}×{resolution}", f"{resolution}", (start + stop) / 2
        for text in (long, short):
            half = LETTER * len(text) / 2
            if half <= (stop - start) / 2 + 4 and middle - half >= free:
                yield f'<text x="{middle:.1f}" y="{top + 10}" class="middle">{text}</text>'
                free = middle + half + 3
                break
    if label:
        yield f'<text x="{LEFT - 6}" y="{top + 10}" class="end">{_escape(label)}</text>'


def _ends(ends: Sequence[tuple[float, str, int]], right: float, top: float) -> Iterable[str]:
    """The last values at the right, pushed apart where they lie on each other."""
    placed: list[tuple[float, str, int]] = []
    for at, text, place in sorted(ends):
        placed.append((max(at, placed[-1][0] + 12 if placed else top), text, place))
    over = max(0.0, placed[-1][0] - (HEIGHT - BOTTOM)) if placed else 0.0
    for at, text, place in placed:
        yield f'<text x="{right + 6:.1f}" y="{at - over + 4:.1f}" class="value line{place}">{_escape(text)}</text>'


def _round_up(step: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next((f * power for f in (1, 2, 5) if f * power >= step * (1 - 1e-9)), 10 * power)


def _tick(value: float) -> str:
    return f"{value:,.6g}" if 1e-4 <= abs(value) < 1e6 or not value else f"{value:.0e}"


def _at(x: float, unit: str) -> str:
    return f"{kimg(x)} kimg" if unit == "kimg" else f"{x:.4g} {unit}"


def _escape(text: str) -> Markup:
    """Text that came from outside, as text and nothing else."""
    return escaped(cleaned(text))
