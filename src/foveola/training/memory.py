"""Freed memory kept for the next step."""

import ctypes
import sys

# glibc's own names and numbers (malloc.h), and the largest threshold that it accepts
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to hand large blocks back to the system when they are freed.

    Each step allocates and frees the same activations. Handed back, they come as fresh pages at every step, and the
    system zeroes each page: 9,000 page faults a step of `west`, a third of its time. Other systems are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, _LARGEST_THRESHOLD)
