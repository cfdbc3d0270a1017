"""The frame around the command line: signals at any moment, output that cannot be shown."""

import signal
import subprocess
import sys

import pytest

# The command line is replaced by a few lines; `kill` sends the signal, and what it raises goes its way.
PROGRAM = """
import os, sys, types, progan.__main__
def kill():
    os.kill(os.getpid(), {number})
def main():
{body}
    return 0
sys.modules["progan.cli"] = sys.modules["progan"].cli = types.SimpleNamespace(main=main)
progan.__main__.main()
"""
MOMENTS = {
    "in the command": "kill()",
    "once more on the way out": "try: kill()\n    finally: kill()",
    "after one that was swallowed": "for _ in 'ab':\n        try: kill()\n        except BaseException: pass",
    "in the last flush": "sys.stdout.flush = kill",
    "while it is said that stdout is full": "sys.stderr.write = lambda text: kill(); raise OSError(28, 'full')",
    "swallowed by an import": "sys.meta_path.insert(0, Importer())\n    import nothing_of_this_name",
}
IMPORTER = """
class Importer:
    def find_spec(self, *about):
        try: kill()
        except BaseException: sys.exit(0)
"""


def program(number: int, body: str) -> subprocess.CompletedProcess[str]:
    text = IMPORTER + PROGRAM.format(number=int(number), body="    " + body)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_ends_the_command_without_a_word_of_python(moment: str, number: int) -> None:
    done = program(number, MOMENTS[moment])
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_python_ends_has_nothing_to_stop(number: int) -> None:
    done = program(number, "import atexit; atexit.register(kill)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
def test_a_signal_that_the_shell_ignores_stays_ignored() -> None:
    text = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {PROGRAM.format(number=2, body='    kill()')}"
    assert subprocess.run([sys.executable, "-c", text], timeout=60).returncode == 0


def test_what_outlives_python_in_a_team_does_not_abort_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As threads of the process group may."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    done = program(0, "import atexit; atexit.register(os.abort)\n    return 2")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(("body", "code"), [("sys.exit(7)", 7), ("sys.exit()", 0), ("return 2", 2)])
def test_the_exit_code_is_the_commands(body: str, code: int) -> None:
    assert program(0, body).returncode == code


@pytest.mark.parametrize(("wish", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_leave_their_core_to_others(
    monkeypatch: pytest.MonkeyPatch, wish: str | None, found: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if wish:
        monkeypatch.setenv("OMP_WAIT_POLICY", wish)
    result = program(signal.SIGTERM, "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)")
    assert result.stdout == f"{found} False\n"  # PyTorch reads it as it is loaded
