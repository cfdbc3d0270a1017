"""`progan ablate`."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from progan.studies.place import HERE, Place


@dataclass(frozen=True)
class Ablate:
    """The paper's ablation study (table 1): train its rows, measure them, one table. The same command goes on."""

    out: Path
    """Folder of the study."""
    data: Path | None = None
    """Data set to train on, made by `progan data create`; training-speed needs none."""
    scale: Literal["small", "medium", "tall", "paper"] = "small"
    """paper: 128x128 as published, for GPUs; small: 32x32, minutes per row on one core of a CPU; medium: 64x64, and
    tall: 128x128 with narrow networks, an hour or two per row."""
    rows: str = "a,b,c,d,e*,e,f,g,h"
    """Rows of table 1, and g-ungrown, g-lsgan, g-lsgan-ungrown; "all" for all of them."""
    seeds: int = 1
    """Runs per row; more give the spread between them."""
    held_out: Path | None = None
    """Data set to measure against, that no run saw; without it, the one trained on."""
    mirror: bool = False
    """Mirror half of the reals (the paper: CelebA yes, LSUN bedroom no)."""
    images: int | None = None
    """Images of each measured set; by default 8192 (small) and 16384 (paper), which need half as many reals more."""
    more_rows: Path | None = None
    """JSON file of rows of your own, {"name", "base", "title", "overrides"} each."""
    figure: Literal["none", "time-to-quality", "stability", "training-speed"] = "none"
    """Instead of the table. time-to-quality: SWD against time with and without growing, rows g and g-ungrown;
    stability: how many runs end well, against the learning rate, both and with LSGAN, in short runs;
    training-speed: images shown against time, from a step's cost at every resolution, without training (figure 4c)."""
    rates: str | None = None
    """Learning rates to try, as multiples of the scale's. Of time-to-quality, by default 1: with growing and without
    are compared at the best of each; of stability, by default 0.25,0.5,1,2,4."""
    preset: str | None = None
    """Of training-speed: a preset in place of the scale's row g."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs that there are), cuda:1 (that one) or mps."""
    place: Annotated[Place, arg(name="")] = HERE

    def run(self) -> None:
        from progan.presets import named_preset
        from progan.studies.ablation.rows import ROWS, SCALES, chosen_rows, read_rows
        from progan.studies.ablation.stability import stability
        from progan.studies.ablation.study import Study
        from progan.studies.ablation.time_to_quality import chosen_rates, time_to_quality
        from progan.studies.ablation.training_speed import training_speed
        from progan.studies.rows import row_config
        from progan.studies.tables import show
        from progan.support.errors import ConfigError

        if self.figure == "training-speed":
            if self.preset is None:
                name, config = f"scale {self.scale}, row g", row_config(chosen_rows("g")[0], self.scale, SCALES, ROWS)
            else:
                name, config = self.preset, named_preset(self.preset).config
            show(*training_speed(name, replace(config, device=self.device), self.out))
            return
        if self.rates is not None and self.figure not in ("time-to-quality", "stability"):
            raise ConfigError("--rates: is for --figure time-to-quality and stability; leave it out")
        if self.preset is not None:
            raise ConfigError("--preset: is for --figure training-speed; leave it out")
        if self.data is None:
            raise ConfigError("--data: is missing; give a data set that progan data create made")
        rows = [*ROWS, *(read_rows(self.more_rows) if self.more_rows is not None else [])]
        common = (self.data, self.out, self.scale, self.held_out, self.mirror, self.seeds, self.images)
        study = Study(*common, self.place.device(self.device), self.place)
        command = f"progan {shlex.join(sys.argv[1:])}"
        if self.figure == "none":
            text, written = study.table(chosen_rows(self.rows, rows), rows, command=command)
        else:
            rates = [] if self.rates is None else [chosen_rates(self.rates)]
            text, written = {"time-to-quality": time_to_quality, "stability": stability}[self.figure](
                study, rows, *rates
            )
        show(text, written)
