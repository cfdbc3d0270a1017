"""Damaged and hostile files of every kind: each is read as what it was, or refused in one printable sentence."""

from pathlib import Path
from zlib import crc32

import pytest

from tests.attack.damage import answer, damaged, strange_json
from tests.attack.kinds import KINDS, Attacked, hostile


def cases(kind: str, attacked: Attacked, canary: Path) -> list[bytes]:
    """Every content with which a kind of file is attacked; the same ones every time."""
    whole, seed = attacked.path.read_bytes(), crc32(kind.encode())
    contents = list(damaged(whole, seed))
    if attacked.path.suffix in (".json", ".jsonl"):
        contents += strange_json(whole, seed)
    if "pickle" in kind or "snapshot" in kind:
        contents += hostile(whole, canary, seed)
    return contents


@pytest.mark.parametrize("kind", KINDS)
def test_damaged(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, canary = tmp_path / "attacked", tmp_path / "canary"
    folder.mkdir()
    attacked = KINDS[kind](folder, monkeypatch)
    accepted, honest = answer(attacked.read, folder)
    assert accepted, honest
    for number, content in enumerate(cases(kind, attacked, canary)):
        attacked.path.write_bytes(content)
        try:
            accepted, found = answer(attacked.read, folder)
            assert not canary.exists(), "the file was executed"
            if accepted and attacked.whole:
                assert found == honest, "it was read as something else"
        except BaseException as error:
            error.add_note(f"case {number}: {content[:300]!r}")
            raise
