"""benchmarks/gpu_check.py, tried with a CPU and with stand-ins for what it starts: verdicts, the file, exit codes."""

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("gpu_check")


@pytest.fixture
def main(gpu_check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """main(*words) -> exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *map(str, words)])
        code = gpu_check.main()
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def work(gpu_check: Any, tmp_path: Path) -> Any:
    return gpu_check.Work(torch.device("cpu"), tmp_path, small=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "gpu_check: there is no cuda on this machine, so there is nothing to check\n"),
        (
            ["--device", "cpu", "--out", "nowhere/gpu.json"],
            "gpu_check: --out: nowhere is no folder; give a file in one",
        ),
    ],
)
def test_what_cannot_be_checked_is_one_sentence_and_nothing_is_written(
    words: Sequence[str], sentence: str, main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    code, out, err = main(*(words or ["--out", tmp_path / "gpu.json"]))
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_that_fails_is_written_and_told_and_keeps_none_from_being_made(
    gpu_check: Any, main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: Any) -> dict[str, Any]:
        raise gpu_check.Failed("3 is not 4")

    def breaks(work: Any) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def skips(work: Any) -> dict[str, Any]:
        raise gpu_check.Skipped("there is one GPU")

    checks = {"first": fails, "second": breaks, "third": skips, "fourth": lambda work: {"img_per_s": 7, "all": {}}}
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    path = tmp_path / "gpu.json"
    code, out, _ = main("--device", "cpu", "--out", path)
    assert code == 1
    record = json.loads(path.read_text())
    told = [(one["name"], one["verdict"], one["why"]) for one in record["checks"]]
    assert told == [
        ("first", "failed", "3 is not 4"),
        ("second", "failed", "CUDA out of memory"),
        ("third", "skipped", "there is one GPU"),
        ("fourth", "passed", ""),
    ]
    assert record["checks"][3]["figures"] == {"img_per_s": 7, "all": {}}
    machine = record["machine"]
    assert (machine["device"], machine["gpus"], machine["torch"]) == ("cpu", [], torch.__version__)
    assert all(words in out for words in ("3 is not 4", "there is one GPU", "img_per_s 7", f"written to {path}"))
    monkeypatch.setattr(gpu_check, "CHECKS", {"third": skips})
    assert main("--device", "cpu", "--out", path)[0] == 0


CASES = {
    "passed": ('<testcase name="a"/><testcase name="b"><skipped/></testcase>', None),
    "failed": ('<testcase name="a"/><testcase name="b[1]"><failure/></testcase>', r"1 of 2 tests: b\[1\]"),
    "an error": ('<testcase name="a"><error/></testcase>', "1 of 1 tests: a"),
    "none": ("", "no test was found"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_of_tests_is_pytests(case: str, gpu_check: Any, work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = CASES[case]
    asked: list[str] = []

    def command(*words: str) -> str:
        asked.extend(words)
        (work.folder / "tests.xml").write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
        if case in ("failed", "an error"):
            raise gpu_check.Failed("pytest ended with 1")
        return ""

    monkeypatch.setattr(gpu_check, "command", command)
    if message is None:
        assert gpu_check.other_tests(work) == {"passed": 1, "skipped": 1}
    else:
        with pytest.raises(gpu_check.Failed, match=message):
            gpu_check.other_tests(work)
    at = asked.index("--device")
    assert asked[at + 1] == "cpu"
    assert "any_device" in asked


def test_a_pytest_that_never_began_is_a_failure(gpu_check: Any, work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*words: str) -> str:
        raise gpu_check.Failed("-m pytest ended with 4")

    monkeypatch.setattr(gpu_check, "command", command)
    with pytest.raises(gpu_check.Failed, match="ended with 4"):
        gpu_check.golden(work)


@pytest.mark.parametrize("other", [None, "fp32-twice", "fp32-halved"])
def test_one_byte_is_another(other: str | None, gpu_check: Any, work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def train(work: Any, out: Path, *words: str, share: float = 1.0) -> None:
        asked.append((out.name, words, share))
        out.mkdir(exist_ok=True)
        (out / "generator.safetensors").write_bytes(b"other" if out.name == other else b"bytes")

    monkeypatch.setattr(gpu_check, "train", train)
    if other is None:
        assert gpu_check.same_bits(work)["fp32"] == "same bytes"
    else:
        with pytest.raises(gpu_check.Failed, match=f"{other}: its generator is not that of fp32-once"):
            gpu_check.same_bits(work)
    assert all("--deterministic" in words for _, words, _ in asked)
    assert [share for name, _, share in asked if name == "fp32-halved"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("terms", "value", "message"),
    [(1.0, 0.5, None), (1.1, 0.5, "first terms differ"), (1.0, 0.6, "MS-SSIM of one pro")],
)
def test_two_processes_are_one(
    terms: float, value: float, message: str | None, gpu_check: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(work: Any, out: Path, *words: str, processes: int) -> None:
        out.mkdir()
        line = json.dumps({"nimg": 16, "wasserstein": terms if processes == 2 else 1.0})
        (out / "stats.jsonl").write_text(f"{line}\n{{}}\n")

    monkeypatch.setattr(gpu_check, "train", train)
    monkeypatch.setattr(gpu_check, "evaluate", lambda work, run, out, processes: value if processes == 2 else 0.5)
    if message is None:
        assert gpu_check.several_processes(work) == {"MS-SSIM of one": 0.5, "of two": 0.5}
    else:
        with pytest.raises(gpu_check.Failed, match=message):
            gpu_check.several_processes(work)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(gpu_check.Skipped, match="there is one GPU"):
        gpu_check.several_processes(gpu_check.Work(torch.device("cuda"), work.folder))


@pytest.mark.parametrize(("capability", "formats"), [((9, 0), ["fp32", "tf32", "bf16"]), ((7, 0), ["fp32"])])
def test_formats_are_those_of_the_gpu(
    capability: tuple[int, int], formats: list[str], gpu_check: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert gpu_check.Work(torch.device("cuda"), work.folder).formats == formats
    assert "tf32" not in work.formats


def test_a_program_that_fails_says_why(gpu_check: Any) -> None:
    with pytest.raises(gpu_check.Failed, match="-m progan evaluate ended with 2: progan: SOURCE: give a run folder"):
        gpu_check.command("-m", "progan", "evaluate", "--data", "nothing")


@pytest.mark.slow
def test_with_a_cpu_it_runs_what_it_says(
    gpu_check: Any, main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("golden numbers", "a run", "training steps")
    monkeypatch.setattr(gpu_check, "CHECKS", {name: gpu_check.CHECKS[name] for name in some})
    code, _, err = main("--device", "cpu", "--small", "--out", tmp_path / "gpu.json")
    checks = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert [one["verdict"] for one in checks] == ["passed"] * 3, checks
    assert code == 0
    assert checks[0]["figures"] == {"passed": 1, "skipped": 0}
    assert checks[1]["figures"]["img_per_s"] > 0
    assert checks[2]["figures"]["8 px fp32"] > 0
    assert err.splitlines() == [f"{name} ..." for name in some]
