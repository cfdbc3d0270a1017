"""JSON against a schema: what is wrong is said in one sentence that names the field."""

from typing import Any, NotRequired, TypedDict

import pytest

from progan.support.json_reader import parse_json


class Entry(TypedDict):
    name: str
    shape: list[int]
    weight: NotRequired[float]


class Facts(TypedDict):
    count: int | None
    files: list[Entry]
    names: list[str] | None
    values: dict[str, float]


SOUND = '{"count": 3, "files": [{"name": "a", "shape": [1], "weight": 2}], "names": null, "values": {"b": 1}}'


def test_what_fits_comes_back() -> None:
    assert parse_json(SOUND, Facts)["files"] == [{"name": "a", "shape": [1], "weight": 2}]
    assert parse_json(b"[1, null]", list) == [1, None]
    assert parse_json('{"a": [1]}', dict[str, Any]) == {"a": [1]}


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('"count": 3', '"count": "x"', "says 'x' where count must be a whole number"),
        ('"count": 3', '"count": true', "says True where count must be a whole number"),
        ('"count": 3, ', "", "has no field count"),
        ('"count": 3', '"count": 1' + 30 * "0", "too large"),
        ("[1]", '[1, "x"]', r"says 'x' where files\[0\].shape\[1\] must be a whole number"),
        ('"name": "a", ', "", r"has no field files\[0\].name"),
        ('"weight": 2', '"weight": null', r"says None where files\[0\].weight must be a number"),
        ("null", "[1]", r"says 1 where names\[0\] must be a text"),
        ("null", "7", "says 7 where names must be a list"),
        ('{"b": 1}', '{"\\u001b": "x"}', r"says 'x' where values.\? must be a number"),
        ('{"b": 1}', "1", "says 1 where values must be an object"),
        ('"a"', '"\\ud800"', "is not UTF-8"),
        ("null", 100_000 * "[", "is nested too deeply"),
        ("null", "", "is no JSON"),
        ('"count": 3', '"count": ' + 5000 * "1", "is no JSON"),
    ],
)
def test_what_does_not_fit_is_named(before: str, after: str, sentence: str) -> None:
    assert before in SOUND
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_json(SOUND.replace(before, after), Facts)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="is not UTF-8"):
        parse_json(b'"\xff"', str)
