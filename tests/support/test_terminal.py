"""Text from outside is shown as text, and by one module alone."""

import ast
from pathlib import Path

import pytest
from rich.table import Table

import progan
from progan.support.progress import progress_bar
from progan.support.terminal import Terminal, cleaned, say

HOSTILE = "[/] [red]x[/red] :smile: \x1b]52;c;eA==\x07 \x1b[2J \r \x9b31m \u202e \udcff é 漢"
HARMLESS = r"[/] [red]x[/red] :smile: \x1b]52;c;eA==\x07 \x1b[2J \r \x9b31m \u202e \udcff é 漢"


def test_text_is_shown_as_it_is_without_what_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, error=True)
    assert capsys.readouterr() == (f"{HARMLESS}\n", f"{HARMLESS}\n")
    assert cleaned("two\nlines\ttab") == "two\nlines\\ttab"


def test_in_tables_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    say(table)
    assert capsys.readouterr().out.count(HARMLESS) == 4


def test_a_bar_takes_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("{task.description}") as progress:
        assert isinstance(progress.console, Terminal)
        progress.disable = False
        progress.add_task("[/]")
        progress.console.print(progress.get_renderable())
    assert "[/]" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(Path(progan.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_else_prints(path: Path) -> None:
    called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {function.id for function in called if isinstance(function, ast.Name)}
    allowed = {"__main__.py": {"print"}, "terminal.py": {"Console"}}  # the one says that output cannot be written
    assert not names & {"print", "Console"} - allowed.get(path.name, set())
