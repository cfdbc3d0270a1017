"""Where the runs of a study are trained: in processes of this machine, or each as a job of a Slurm cluster."""

import math
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from progan.support.errors import ConfigError, printable

PROGRAMS = ("sbatch", "srun")  # of Slurm


@dataclass(frozen=True)
class Slurm:
    """What each run of --on slurm asks the cluster for."""

    partition: str | None = None
    """Partition of the cluster; by default its own."""
    hours: float = 24
    """Hours after which a run saves, is queued again, and goes on, however long it is in all."""
    gpus: int = 1
    """1, or 0 to train on the processor."""
    cpus: int = 2
    """Cores of a run; it computes with one thread."""
    memory_gb: float = 32
    """Memory of a run in GB."""
    options: tuple[str, ...] = ()
    """Any other options of sbatch: account=vision constraint=a100 exclusive."""

    def check(self) -> None:
        """Raise ConfigError when something is not allowed."""
        whole = "use a whole number of 1 or more"
        for name, value, good, advice in (
            ("hours", self.hours, 1 / 6 <= self.hours < math.inf, "use a sixth of an hour or more"),
            ("gpus", self.gpus, self.gpus in (0, 1), "use 1, as a run works on one GPU, or 0 for the processor"),
            ("cpus", self.cpus, self.cpus >= 1, whole),
            ("memory-gb", self.memory_gb, 1 <= self.memory_gb < math.inf, "use 1 or more"),
        ):
            if not good:
                raise ConfigError(f"--slurm.{name}: {value} is not allowed; {advice}")
        for option in self.options:
            name = option.partition("=")[0]
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or "\n" in option:
                shown = printable(repr(option), 60)
                raise ConfigError(f"--slurm.options: {shown} is no option of sbatch; give some such as account=vision")

    def other(self) -> dict[str, str | bool]:
        """The other options of sbatch by name, with _ for -; True for one without a value."""
        parts = (option.partition("=") for option in self.options)
        return {name.strip("-").replace("-", "_"): value if equal else True for name, equal, value in parts}


@dataclass(frozen=True)
class Place:
    """Where the runs are trained, and whether they are waited for."""

    on: Literal["here", "slurm"] = "here"
    """here: this machine; slurm: each run a job of a Slurm cluster, which may be preempted, waits again and goes on."""
    jobs: int | None = None
    """Runs side by side on this machine; by default one per core, or one per GPU. It changes no result."""
    wait: bool = True
    """With --no-wait no run is waited for: jobs of Slurm are submitted, and the report is of what is there."""
    slurm: Slurm = Slurm()

    def check(self) -> None:
        """Raise ConfigError when something is not allowed, is of another place, or the place is not there."""
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs: {self.jobs} is not allowed; use 1 or more")
        if self.on == "here" and self.slurm != Slurm():
            raise ConfigError("--slurm: its options are for --on slurm; add that, or leave them out")
        if self.on == "slurm":
            if self.jobs is not None:
                raise ConfigError("--jobs: is for this machine, and Slurm itself decides how many run; leave it out")
            self.slurm.check()
            if find_spec("submitit") is None:
                raise ConfigError("--on: submitit is not installed; pip install 'progan[cluster]'")
            if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
                advice = "give the command on a machine of the cluster"
                raise ConfigError(f"--on: slurm's program {missing[0]} is not on this machine; {advice}")

    def device(self, asked: str) -> str:
        """The device that a run of this place is given, when --device asks for one; as `check`."""
        self.check()
        if self.on == "here":
            return asked
        if asked != "auto":
            raise ConfigError("--device: is for this machine; leave it out, and use --slurm.gpus 0 for the processor")
        return "auto" if self.slurm.gpus else "cpu"


HERE = Place()
