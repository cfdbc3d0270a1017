"""What was done of a long creation, job by job, so that it can go on after an interruption."""

import json
import os
from pathlib import Path
from typing import Any

from progan.support.errors import DataError

JOURNAL = "journal.jsonl"


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
        *lines, _ = self._path.read_bytes().split(b"\n")  # what follows the last newline is torn
        try:
            identity, *records = [json.loads(line) for line in lines] or [None]
        except ValueError as error:
            raise DataError(f"{self._path}: is damaged ({error}); delete {self._path.parent} to begin again") from error
        if identity is not None and identity != self._identity:
            differ = sorted(key for key in {*identity, *self._identity} if identity.get(key) != self._identity.get(key))
            raise DataError(
                f"{self._path.parent}: was begun with another {' and '.join(differ)}; give the same command to go on, "
                "or delete it to begin again"
            )
        return records
