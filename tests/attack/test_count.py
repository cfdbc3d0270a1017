"""How many cases the attack has: pytest tests/attack/test_count.py -s"""

from pathlib import Path

import pytest

from tests.attack.kinds import KINDS
from tests.attack.test_damaged_files import cases
from tests.attack.test_mistaken_commands import commands, mistakes
from tests.attack.test_not_plain import IN_PLACE


def test_the_attack_has_thousands_of_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {}
    for number, (kind, make) in enumerate(KINDS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        counts[kind] = len({*cases(kind, make(folder, monkeypatch), tmp_path / "canary")})
    given = tmp_path / "given"
    lines = {command: [*mistakes(command, words, given)] for command, words in commands(given, tmp_path).items()}
    for name, count in counts.items():
        print(f"{count:6,}  {name}")
    print(f"{sum(counts.values()):6,}  damaged files of {len(counts)} kinds")
    print(f"{len(KINDS) * len(IN_PLACE):6,}  pipes, folders, devices and enormous files in their place")
    print(f"{sum(map(len, lines.values())):6,}  mistaken lines of {len(lines)} commands")
    assert all(count >= 60 for count in counts.values())
    assert sum(counts.values()) + sum(map(len, lines.values())) >= 2000
