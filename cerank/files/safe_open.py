"""Opens files that another user may have put there.

Invariant: opening never waits, and what is opened has an end: a FIFO, a device or a socket in the place of a file is
refused as the system would refuse a folder.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


def open_file(path: Path) -> io.BufferedReader:
    """Open the regular file at `path` for reading; the caller closes it.

    Raises:
        OSError: it is not there, may not be read, or is no regular file.
        ValueError: the path holds NUL.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Is a pipe, a device or a socket, not a file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a regular file, at most `most` of them unless it is negative.

    Raises:
        OSError, ValueError: as `open_file`.
    """
    with open_file(path) as file:
        return file.read(most)
