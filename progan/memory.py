"""How the C library keeps memory."""

import ctypes


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for the next step asks for the same ones again.

    By default they go back to the kernel, and a training step on the CPU spends a tenth of its time or more on
    getting zeroed pages for them. Elsewhere this does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-3, 2**30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(option, value)
