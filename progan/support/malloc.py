"""How the C library keeps memory."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for the next step asks for the same ones again.

    By default they go back to the kernel, and a training step on the CPU spends a tenth of its time or more on
    getting zeroed pages for them.
    Where the C library is another one this does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
