"""What was done of a long creation, job by job, so that it can go on after an interruption."""

import json
import os
from pathlib import Path
from typing import Any, TypedDict

from progan.support.errors import DataError, printable
from progan.support.json_reader import parse_json
from progan.support.plain_files import LIST_BYTES, read_plain

JOURNAL = "journal.jsonl"


class _Record(TypedDict):
    """What was done of one job. bad: why it gave no image, name and reason; images: how many there are after it."""

    bad: list[str] | None
    counts: dict[str, int]
    images: int


class Journal:
    """A file of JSON lines: what is being made, then one record for each job that is done, in the order of the jobs.

    records: those that were there already; a torn last line, left by a kill, is dropped.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._path = folder / JOURNAL
        self._identity = json.loads(json.dumps(identity))  # as it will be read back
        self.records = self._read() if self._path.exists() else []

    def begin(self, count: int) -> None:
        """Keep the first `count` records and open the file for more."""
        self.records = self.records[:count]
        lines = [json.dumps(line) + "\n" for line in (self._identity, *self.records)]
        temporary = self._path.with_suffix(".new")
        temporary.write_text("".join(lines))
        os.replace(temporary, self._path)
        self._file = self._path.open("a")

    def append(self, record: dict[str, Any]) -> None:
        """Add the record of one job; it survives a kill of the process."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.records.append(record)

    def finish(self) -> None:
        """Delete the file: the work is done."""
        self._file.close()
        self._path.unlink()

    def _read(self) -> list[dict[str, Any]]:
        begin_again = f"delete {self._path.parent} to begin again"
        try:
            *lines, _ = read_plain(self._path, LIST_BYTES).split(b"\n")  # what follows the last newline is torn
            identity = parse_json(lines[0], dict[str, Any]) if lines else None
            records: list[dict[str, Any]] = [{**parse_json(line, _Record)} for line in lines[1:]]
            _check_counts(records)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: is damaged ({printable(error)}); {begin_again}") from error
        if identity is not None and identity != self._identity:
            differ = sorted(key for key in {*identity, *self._identity} if identity.get(key) != self._identity.get(key))
            raise DataError(
                f"{self._path.parent}: was begun with another {printable(' and '.join(differ))}; "
                f"give the same command to go on, or {begin_again}"
            )
        return records


def _check_counts(records: list[dict[str, Any]]) -> None:
    """Raise ValueError unless each job gave one image, or is bad and gave none."""
    images = 0
    for number, record in enumerate(records, 1):
        images += record["bad"] is None
        if record["images"] != images or len(record["bad"] or "12") != 2:
            raise ValueError(f"record {number} does not follow from those before")
