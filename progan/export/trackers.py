"""The trackers that a run can be sent to, each behind the same few calls."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from PIL import Image

from progan.support.errors import ConfigError, RunError, printable
from progan.support.files import disk_reason
from progan.support.plain_files import check_plain, read_plain

PICTURE_BYTES = 2**28  # of one that a run wrote


class Tracker(Protocol):
    """Where points and pictures go. `before` is what commit() returned the last time, {} at first.

    seconds: when it happened, since 1970.
    """

    def __init__(self, out: Path, name: str, before: dict[str, Any]) -> None: ...

    def __enter__(self) -> "Tracker": ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def hyperparameters(self, fields: dict[str, Any]) -> None:
        """What the run never changes, by dotted name."""

    def scalars(self, nimg: int, values: dict[str, float], seconds: float) -> None:
        """Values by tag at a step."""

    def picture(self, nimg: int, tag: str, path: Path, seconds: float) -> None:
        """A PNG file at a step."""

    def commit(self) -> dict[str, Any]:
        """Put all on the disk; returns what is needed to go on from here."""


class TensorBoard:
    """One event file, that grows by whole events; what was written after the last commit is cut when it goes on."""

    def __init__(self, out: Path, name: str, before: dict[str, Any]) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.hparams import summary_v2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise _missing("tensorboard", error) from None
        self._event, self._summary, self._hparams = event_pb2.Event, summary_pb2.Summary, summary_v2.hparams_pb
        self.name = name
        path = out / "events.out.tfevents.progan"
        try:
            if path.exists():
                check_plain(path)
            self._file = path.open("ab")
            size = before.get("bytes", 0)
            if not (isinstance(size, int) and 0 <= size <= self._file.tell()):
                self._file.close()
                raise RunError(f"{path}: is not what was sent before; give --out a new folder")
            self._file.truncate(size)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({printable(error)}); give --out another folder") from None
        self._records = RecordWriter(self._file)
        if not before:
            self._write(file_version="brain.Event:2")

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def hyperparameters(self, fields: dict[str, Any]) -> None:
        """A row of TensorBoard's table of hyperparameters."""
        self._write(summary=self._hparams(fields, trial_id=self.name))

    def scalars(self, nimg: int, values: dict[str, float], seconds: float) -> None:
        """One event with a scalar for each tag."""
        value = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=nimg, wall_time=seconds, summary=self._summary(value=value))

    def picture(self, nimg: int, tag: str, path: Path, seconds: float) -> None:
        """One event with the file as it is."""
        try:
            content = read_plain(path, PICTURE_BYTES)
            with Image.open(io.BytesIO(content)) as picture:
                width, height = picture.size
                colours = len(picture.getbands())
        except (OSError, Image.DecompressionBombError) as error:
            raise RunError(f"{path}: cannot be sent ({printable(error)}); delete it") from None
        image = self._summary.Image(width=width, height=height, colorspace=colours, encoded_image_string=content)
        value = [self._summary.Value(tag=tag, image=image)]
        self._write(step=nimg, wall_time=seconds, summary=self._summary(value=value))

    def commit(self) -> dict[str, Any]:
        """The length of the file."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from None
        return {"bytes": self._file.tell()}

    def _write(self, **fields: Any) -> None:
        try:
            self._records.write(self._event(**fields).SerializeToString())
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> RunError:
        return RunError(f"{self._file.name}: cannot be written ({disk_reason(error)}); free some space")


class Wandb:
    """A run of Weights & Biases, written under `out` and sent nowhere, unless WANDB_MODE says otherwise.

    The project is progan, unless WANDB_PROJECT says otherwise. A call that goes on writes another offline folder of
    the same run, by its id. The step is the field nimg.
    """

    def __init__(self, out: Path, name: str, before: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", error) from None
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "progan"),
                mode=os.environ.get("WANDB_MODE", "offline"),
                dir=out,
                name=name,
                id=before.get("id"),
                resume="allow",
                settings={"console": "off", "silent": True},
            )
        except (wandb.Error, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(f"wandb: does not begin ({reason}); WANDB_MODE=offline needs no account") from None
        self._run.define_metric("nimg")
        self._run.define_metric("*", step_metric="nimg")

    def __enter__(self) -> "Wandb":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)

    def hyperparameters(self, fields: dict[str, Any]) -> None:
        """The config of the run."""
        self._run.config.update(fields, allow_val_change=True)

    def scalars(self, nimg: int, values: dict[str, float], seconds: float) -> None:
        """One line of the history; wandb keeps its own time."""
        self._run.log({"nimg": nimg, **values})

    def picture(self, nimg: int, tag: str, path: Path, seconds: float) -> None:
        """One line of the history with a copy of the file."""
        self._run.log({"nimg": nimg, tag: self._wandb.Image(str(path))})

    def commit(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self._run.id}


def _missing(package: str, error: ImportError) -> ConfigError:
    how = "pip install 'progan[track]'" if package == "tensorboard" else "pip install wandb"
    return ConfigError(f"--to: {package} is not installed ({error}); {how}")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb}
