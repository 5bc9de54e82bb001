"""One process at a time, where several would do the same work."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["file_lock"]


@contextmanager
def file_lock(target: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of `target`, which need not exist; other processes wait for it.

    The lock is the operating system's, on an empty file `.lock-NAME` beside the target, so it is
    free again when its holder dies, however it dies. Where the folder cannot be written or its file
    system has no locks, nothing is held: whoever uses this also writes atomically, and then only
    does the work twice.
    """
    from filelock import FileLock

    target = Path(target)
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(target.with_name(f".lock-{target.name}")))
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


_NO_LOCKS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP,
    errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.EINVAL,
}  # fmt: skip
