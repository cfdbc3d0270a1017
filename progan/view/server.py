"""The viewer's server: on this machine alone, behind an address with a secret in it, ended by one signal."""

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import uvicorn

from progan.support.errors import ConfigError
from progan.support.workers import cores
from progan.view.answers import Viewer

NICE = 10  # training goes first


def serve(
    folder: Path,
    *,
    data: tuple[Path, ...] = (),
    port: int = 0,
    host: str = "127.0.0.1",
    device: str = "auto",
    ready: Callable[[str], None],
) -> None:
    """Answer until a signal ends it. port 0: any that is free; ready: is called with the address, once it is open.

    The signal ends the process, without what Python would clear away first, for seconds on a busy machine. Raises
    ConfigError when the port is taken, or there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; give one that holds runs, or will")
    config = uvicorn.Config(lambda: None, host=host, port=port, log_level="critical", lifespan="off", factory=False)
    try:
        socket = config.bind_socket()
    except (SystemExit, OSError):
        raise ConfigError(f"--port: {port} is taken on {host}; choose another, or 0 for any that is free") from None
    port = socket.getsockname()[1]
    secret = secrets.token_urlsafe(24)
    everywhere = host in ("0.0.0.0", "::")  # asked for: then it has names that it does not know
    hosts = None if everywhere else {f"{name}:{port}" for name in {host, "127.0.0.1", "localhost"}}
    if hasattr(os, "nice"):
        os.nice(NICE)
    torch.set_num_threads(max(1, cores() // 2))
    config.app = Viewer(folder, data, device).app(secret, hosts)
    config.timeout_graceful_shutdown = 0
    server = _Server(config)
    threading.Thread(target=_tell, args=(server, lambda: ready(f"http://{host}:{port}/{secret}/")), daemon=True).start()
    try:
        server.run(sockets=[socket])
    except (SystemExit, KeyboardInterrupt) as stop:  # the signal, which uvicorn gives on once it has closed
        os._exit(stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130)


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: Any) -> None:
        """One signal is enough, whoever still listens."""
        self.force_exit = True
        super().handle_exit(sig, frame)


def _tell(server: uvicorn.Server, ready: Callable[[], None]) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.02)
    if server.started:
        ready()
