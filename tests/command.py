"""A command given in this process, and what it answered."""

import pytest
from rich.console import RenderableType

from progan.cli import main
from progan.support.terminal import Terminal


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one sentence with which a command is refused."""
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("progan: ")
    assert err.count("\n") == 1, err
    return err


def on_screen(what: RenderableType) -> str:
    """What a terminal of 140 columns would show."""
    terminal = Terminal()
    terminal.width = 140
    with terminal.capture() as shown:
        terminal.say(what)
    return shown.get()
