"""`progan view`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from progan.support.errors import ConfigError
from progan.support.terminal import say


@dataclass(frozen=True)
class View:
    """Watch runs in the browser while they train, compare them, and explore what they have learned.

    Prints an address on this machine, with a secret in it. Reads the folder and writes nothing.
    """

    folder: Positional[Path] = Path()
    """Holds one run or many, data sets, studies; they are found as they appear."""
    data: tuple[Path, ...] = ()
    """Data sets elsewhere, among which the nearest training images are looked for too."""
    port: int = 0
    """Of the address; 0 takes one that is free."""
    host: str = "127.0.0.1"
    """Which of this machine's addresses; by default no other machine can ask."""
    open: bool = False
    """Open the address in the browser."""
    device: str = "auto"
    """auto, cpu, cuda or mps: where pictures are computed."""

    def run(self) -> None:
        try:
            from progan.view.server import serve
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            raise ConfigError(f"view: {package} is not installed; pip install 'progan[view]'") from None
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port: {self.port} is not allowed; use 0 to {2**16 - 1}")
        serve(self.folder, data=self.data, port=self.port, host=self.host, device=self.device, ready=self._ready)

    def _ready(self, address: str) -> None:
        say(f"{address}\nshows what is in {self.folder.resolve()}; Ctrl-C ends it")
        if self.open:
            import webbrowser

            webbrowser.open(address)
