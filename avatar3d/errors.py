"""The one exception a person is meant to read."""

__all__ = ["UserError"]


class UserError(Exception):
    """Something the person can put right: bad input, a missing file or a missing optional package.

    The message is one sentence that says what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """
