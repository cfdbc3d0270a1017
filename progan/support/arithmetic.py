"""How a GPU multiplies and adds, said outright: nothing is left to what a process happens to have set.

PyTorch lets cuDNN's convolutions round to TF32 unless it is told otherwise, and a library that was imported before may
have told it anything. Within `number_format` the settings are those of this program, and afterwards those of before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from progan.support.errors import ConfigError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
REPEATABLE = (":4096:8", ":16:8")  # the two values with which cuBLAS adds in one order (NVIDIA's documentation)
NOT_THERE = "does not have a deterministic implementation"


@contextmanager
def number_format(precision: str, *, tuned: bool = False) -> Iterator[None]:
    """float32 means float32 within: TF32 only where `precision` is "tf32", for matrix products as for convolutions.

    tuned: cuDNN times its algorithms at the first convolution of every shape and keeps the quickest. Training has the
    same shapes for a whole phase, so it pays there; generating and measuring have batches of their own at the end, and
    a choice by the clock may differ from one start to the next, so there cuDNN goes by its rules. Within `same_bits` it
    always does. On a CPU "fp32" likewise leaves no bfloat16 or TF32 that oneDNN was allowed elsewhere.
    """
    before = _settings()
    tf32 = precision == "tf32"
    try:
        _multiply(tf32)
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # sums stay float32
        torch.backends.cudnn.deterministic = torch.are_deterministic_algorithms_enabled()
        torch.backends.cudnn.benchmark = tuned and not torch.are_deterministic_algorithms_enabled()
        yield
    finally:
        _restore(before)


@contextmanager
def same_bits(wanted: bool, device: torch.device) -> Iterator[None]:
    """The same bits from every start on one kind of GPU: algorithms that add in one order (--deterministic).

    Not wanted, nothing is done. Raises ConfigError on a device that promises no such thing, when CUDA has started with
    another setting of cuBLAS, and in place of PyTorch's error when an operation has no such algorithm.
    """
    if not wanted:
        yield
        return
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"deterministic: {device.type} promises no such thing; use device cuda or cpu, or leave it out"
        )
    if device.type == "cuda":
        _one_order()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # a guard that costs time: no such memory is read
        yield
    except RuntimeError as error:
        if NOT_THERE not in str(error):
            raise
        operation = str(error).split(NOT_THERE)[0].strip()
        raise ConfigError(
            f"deterministic: on {device} {operation} never gives the same bits; leave --deterministic out"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


def _one_order() -> None:
    """cuBLAS reads its variable when it first multiplies: set it before, and let nobody else's value stand."""
    found = os.environ.get(CUBLAS)
    if found in REPEATABLE:
        return
    if found is not None:
        raise ConfigError(f"deterministic: {CUBLAS} is {found!r}; unset it, or set it to {' or '.join(REPEATABLE)}")
    if torch.cuda.is_initialized():
        raise ConfigError(f"deterministic: CUDA has started already; set {CUBLAS}={REPEATABLE[0]} before Python starts")
    os.environ[CUBLAS] = REPEATABLE[0]


def _formats() -> list[Any]:
    """The operations whose float32 may be multiplied as something less: three of NVIDIA's GPUs, three of oneDNN."""
    kinds: list[tuple[Any, tuple[str, ...]]] = [
        (torch.backends.cuda, ("matmul",)),
        (torch.backends.cudnn, ("conv", "rnn")),
        (torch.backends.mkldnn, ("matmul", "conv", "rnn")),
    ]
    return [getattr(backend, name) for backend, names in kinds for name in names]


def _multiply(tf32: bool) -> None:
    # The older names set the newer ones too, not the other way: alone, the newer ones leave a contradiction, at which
    # the next matrix product on a GPU fails.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    for number, operation in enumerate(_formats()):
        operation.fp32_precision = "tf32" if tf32 and number < 3 else "ieee"


def _settings() -> tuple[str | None, list[str], bool, bool, bool]:
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:  # the process has left a contradiction
        older = None
    return (
        older,
        [operation.fp32_precision for operation in _formats()],
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def _restore(before: tuple[str | None, list[str], bool, bool, bool]) -> None:
    older, formats, reduced, deterministic, benchmark = before
    torch.set_float32_matmul_precision(older or ("high" if formats[0] == "tf32" else "highest"))
    torch.backends.cudnn.allow_tf32 = formats[1] == "tf32"
    for operation, precision in zip(_formats(), formats, strict=True):
        operation.fp32_precision = precision
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = reduced
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark
