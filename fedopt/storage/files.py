"""Atomic file writes: a reader, or a run that was killed, finds the old file or the new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedopt.errors import NotStored

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a disk, a quota or a file size limit that is exhausted."""

NOT_WRITABLE = NO_ROOM | {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE}
"""Errors of the file system, as opposed to those of connections."""


def replace_file(file: Path, content: bytes) -> None:
    """Replaces the file atomically, once `content` is on disk. A failure leaves no temporary file."""
    draft = file.with_name(f".{file.name}.draft")
    try:
        with open(draft, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """For code that writes into `folder`: turns file system errors into NotStored with the reason."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        if not folder.exists():
            raise NotStored(f"{folder} is gone: it was moved or deleted while it was in use") from error
        raise NotStored(f"{folder} cannot be written: {error.strerror}") from error
