"""Curves as SVG: what is drawn lies where its numbers say."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from progan.view.curves import HEIGHT, LEFT, WIDTH, Line, draw, kimg, summary

PHASES = [
    {"start": 0, "stop": 4000, "resolution": 4, "fading": False},
    {"start": 4000, "stop": 8000, "resolution": 8, "fading": True},
    {"start": 8000, "stop": 20000, "resolution": 8, "fading": False},
]
HOSTILE = "\"><script>alert('x')</script>&"


def drawn(*lines: Line, rulers: dict[str, Any] | None = None, title: str = "Loss", **how: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw(title, lines, {"": PHASES} if rulers is None else rulers, **how))


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [part for part in svg.iter() if name in part.get("class", "").split()]


def places(part: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", part.get("d", ""))]


def texts(svg: ElementTree.Element) -> list[str]:
    return [part.text or "" for part in svg.iter("text")]


def test_a_curve_goes_through_its_points() -> None:
    x, y = [0, 5000, 10000, 20000], [1.0, 3.0, -1.0, 2.0]
    svg = drawn(Line("", x, y))
    (curve,) = of_class(svg, "curve")
    found = places(curve)
    assert len(found) == 4
    for i in range(3):  # equal steps lie equally far apart, up is more
        assert (found[i + 1][0] - found[0][0]) / (found[3][0] - found[0][0]) == pytest.approx(
            x[i + 1] / 20000, abs=0.01
        )
        assert (found[i][1] - found[2][1]) / (found[1][1] - found[2][1]) == pytest.approx((y[i] + 1) / 4, abs=0.01)
    assert all(LEFT - 1 <= a <= WIDTH and 0 <= b <= HEIGHT for a, b in found)
    assert len(of_class(svg, "dot")) == 4
    assert "2" in texts(svg)


def test_the_axis_is_logarithmic_where_a_linear_one_would_hide_something() -> None:
    falling = Line("", [0, 1000, 2000], [1000.0, 100.0, 10.0])
    (curve,) = of_class(drawn(falling), "curve")
    a, b, c = (y for _, y in places(curve))
    assert b - a == pytest.approx(c - b, abs=0.2)
    (curve,) = of_class(drawn(Line("", [0, 1000, 2000], [30.0, 20.0, 10.0])), "curve")
    a, b, c = (y for _, y in places(curve))
    assert b - a == pytest.approx(c - b, abs=0.2)
    (curve,) = of_class(drawn(Line("", [0, 1000, 2000], [1000.0, 100.0, 0.0])), "curve")  # of 0 there is no logarithm
    a, b, c = (y for _, y in places(curve))
    assert b - a == pytest.approx(9 * (c - b), rel=0.02)


def test_spread_and_floor_lie_around_and_below() -> None:
    svg = drawn(Line("", [0, 1000, 2000], [30.0, 20.0, 20.0], [3.0, None, 2.0], floor=10.0))
    (curve,), (band,), (floor,) = (of_class(svg, name) for name in ("curve", "spread", "floor"))
    middle, around = places(curve), places(band)
    for (x, y), above, below in zip(middle, around[:3], reversed(around[3:]), strict=True):
        assert above[0] == below[0] == x
        assert y - above[1] == pytest.approx(below[1] - y, abs=0.2)
    assert around[0][1] < middle[0][1] - 5
    assert around[1][1] == middle[1][1]
    assert places(floor)[0][1] == pytest.approx(2 * middle[1][1] - middle[0][1], abs=0.2)


def test_where_nothing_was_measured_there_is_no_line() -> None:
    (curve,) = of_class(drawn(Line("", [0, 1, 2, 3, 4, 5], [1.0, 2.0, None, 3.0, None, 4.0])), "curve")
    assert [part.count("L") for part in curve.get("d", "").split("M")[1:]] == [1, 0, 0]


def test_phases_are_bands_with_their_resolution() -> None:
    svg = drawn(Line("", [0, 20000], [1.0, 2.0]))
    (curve,), (fade,) = of_class(svg, "curve"), of_class(svg, "fade")
    (begin, _), (end, _) = places(curve)
    left, right = (float(x) for x in re.findall(r"[MH]([\d.]+)", fade.get("d", ""))[:2])
    assert (left - begin) / (end - begin) == pytest.approx(0.2, abs=0.005)
    assert (right - begin) / (end - begin) == pytest.approx(0.4, abs=0.005)
    assert {"4×4", "8×8"} < set(texts(svg))


def test_phases_of_two_runs_are_rows_and_their_ends_do_not_overlap() -> None:
    lines = (Line("A", [0, 20000], [1.0, 2.0]), Line("B", [0, 20000], [3.0, 2.0]))
    svg = drawn(*lines, rulers={"A": PHASES, "B": [PHASES[2] | {"start": 0}]})
    assert texts(svg).count("8×8") == 2
    assert {"A", "B"} < set(texts(svg))
    ends = {part.text: float(part.get("y", "")) for part in of_class(svg, "value")}
    assert ends.keys() == {"A 2", "B 2"}
    assert abs(ends["A 2"] - ends["B 2"]) >= 11
    assert all(float(part.get("x", "")) + 6 * len(part.text or "") <= WIDTH for part in of_class(svg, "value"))


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([5], [3.0]), ([0, 1], [2.0, 2.0]), ([0, 1], [0.0, 0.0]), ([0, 1], [None, None]), ([0, 0], [1.0, 2.0]),
     ([0, 2**62], [1e300, -1e300]), ([1, 2], [1e-300, 1e300]), ([-5, 5], [1e-9, 2e-9])],
)  # fmt: skip
def test_any_values_can_be_drawn(x: list[int], y: list[float | None]) -> None:
    svg = drawn(Line("", x, y))
    assert "nan" not in ElementTree.tostring(svg, "unicode")
    there = [value for value in y if value is not None]
    assert ("no values" in texts(svg)) == (not there)
    assert sum(len(part.get("d", "").split("L")) for part in of_class(svg, "curve")) == len(there)


def test_nothing_in_a_name_is_markup() -> None:
    svg = drawn(Line(HOSTILE, [0, 1], [1.0, 2.0]), title=HOSTILE, rulers={HOSTILE: PHASES}, unit=HOSTILE)
    assert {part.tag for part in svg.iter()} <= {"svg", "path", "text", "circle"}
    assert HOSTILE in texts(svg)
    assert svg.get("aria-label", "").startswith(f"{HOSTILE}: {HOSTILE}: from 1 at")
    assert not [name for part in svg.iter() for name in part.attrib if name.startswith("on") or name == "style"]


def test_a_curve_is_told_in_words() -> None:
    line = Line("A", [0, 500, 12_345_678], [3.0, 1.0, 2.0], floor=0.5)
    assert summary("SWD", [line]) == ("SWD: A: from 3 at 0 kimg to 2 at 12,345.678 kimg, between 1 and 3; reals 0.5")
    assert kimg(96) == "0.096"
