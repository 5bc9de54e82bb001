"""The one exception a person is meant to read, and sentences for the others."""

import os

__all__ = ["DEBUG", "UserError", "explained"]

DEBUG = "AVATAR3D_DEBUG"
"""Environment variable that makes faults show their traceback."""


class UserError(Exception):
    """Something the person can put right: bad input, a missing file or a missing optional package.

    The message is one sentence that says what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


def explained(error: Exception) -> tuple[str, int]:
    """Sentence and exit code for an exception that is not ours."""
    if isinstance(error, MemoryError):
        return "The memory is full; close other programs, or use a shorter or smaller clip.", 1
    if isinstance(error, OSError) and error.strerror:
        where = f" {os.fspath(error.filename)!r}" if error.filename else " a file"
        return (
            f"The system refuses{where}: {error.strerror}; check free space and permissions, then "
            "run the same command again.",
            2,
        )
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return (
        f"Unexpected {type(error).__name__} ({reason}); run again with {DEBUG}=1 for the "
        "traceback and report it.",
        1,
    )
