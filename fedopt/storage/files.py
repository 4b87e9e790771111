"""Writing files so that a reader, or a run that was killed, finds the old or the new one and nothing between."""

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
"""Errors of the file system; others, of connections say, are not about files."""


def replace_file(file: Path, content: bytes) -> None:
    """Puts `content` in place of the file at once, and on the disk before it counts. A failure leaves no draft."""
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
    """For code that writes into `folder`: NotStored, with the reason, where the file system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        if not folder.exists():
            raise NotStored(f"{folder} is gone: it was moved or deleted while it was in use") from error
        raise NotStored(f"{folder} cannot be written: {error.strerror}") from error
