"""What keeps a peer of benchmarks/peers.py from running on today's PyTorch is mended at run time, and written down."""

import importlib
import sys
import types
import typing
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Mends:
    """What was mended, and why; only what was needed here is in it."""

    done: list[dict[str, str]] = field(default_factory=list)

    def note(self, what: str, why: str) -> None:
        self.done.append({"what": what, "why": why})

    def stand_in(self, *names: str) -> None:
        """Modules that hold anything and do nothing, where the real ones cannot be imported."""
        try:
            for name in names:
                importlib.import_module(name)
        except Exception as error:  # torchvision fails in many ways beside a torch that it was not built for
            top = names[0].partition(".")[0] if not names[0].startswith("torch.") else names[0]
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
            for name in names:
                sys.modules[name] = _Anything(name)
                parent, _, child = name.rpartition(".")
                if parent:
                    setattr(sys.modules[parent], child, sys.modules[name])
            reason = f"cannot be imported here ({type(error).__name__}), and nothing is computed with it"
            self.note(f"a stand-in for {names[0]}", reason)

    def adam(self) -> None:
        """Both give Adam the integer 0 as beta1."""
        try:
            torch.optim.Adam([torch.zeros(1, requires_grad=True)], betas=(0, 0.99))
        except ValueError:
            adam = torch.optim.Adam
            torch.optim.Adam = lambda params, betas, **how: adam(params, betas=tuple(map(float, betas)), **how)
            self.note("Adam's betas made floats", "PyTorch takes no integer beside a float any more")


class _Anything(types.ModuleType):
    __path__: typing.ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _Nothing:
    def __init__(self, *args: Any, **how: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **how: None
