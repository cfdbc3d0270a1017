"""Tables in Markdown, character by character: documents and older studies hold them."""

import math

import pytest

from progan.studies.tables import markdown_table, mean_and_std, plus_minus

HEADS, ROWS = ["row", "what", "SWD", "kimg"], [["a", "", "1 ± 2", "3"], ["reals", "x", "", ""]]


def test_words_stand_left_and_numbers_right() -> None:
    assert markdown_table(HEADS, ROWS, words=2) == (
        "| row | what | SWD | kimg |\n"
        "| --- | --- | ---: | ---: |\n"
        "| a |  | 1 ± 2 | 3 |\n"
        "| reals | x |  |  |\n"
    )  # fmt: skip


def test_a_tight_table_has_fewer_spaces() -> None:
    assert markdown_table(HEADS, iter(ROWS), words=1, tight=True) == (
        "| row | what | SWD | kimg |\n"
        "|---|---:|---:|---:|\n"
        "| a | | 1 ± 2 | 3 |\n"
        "| reals | x | | |\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((12.345678, 0.25), "12.35 ± 0.25"),
        ((12.345678, 0.0), "12.35 ± 0"),
        ((12.345678, None), "12.35"),
        ((math.nan, None), "nan"),
        ((900, 7.0711, ".1f"), "900.0 ± 7.1"),
        ((12.5, 0.125, ".4g", ".2g"), "12.5 ± 0.12"),
    ],
)
def test_a_value_has_its_spread_behind_it(given: tuple[float, ...], text: str) -> None:
    assert plus_minus(*given) == text  # type: ignore[arg-type]


def test_mean_and_deviation_of_seeds() -> None:
    assert mean_and_std([8, 9, 10]) == (9, 1)
    assert mean_and_std([8]) == (8, None)
    for bad in (math.nan, math.inf):
        for values in ([8, bad, 10], [bad]):
            mean, std = mean_and_std(values)
            assert math.isnan(mean)
            assert std is None
