"""Entry point: runs a command and turns whatever goes wrong into one sentence and an exit code."""

import os
import sys
import threading

from avatar3d.errors import DEBUG, UserError, explained

__all__ = ["main"]

_INTERRUPTED = 130
_AGAIN = "Interrupted; run the same command again to continue."


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 a fault of ours or of the machine, 2 something the person can put right,
    3 some rows of a batch failed and the others are done, 130 interrupted. With
    AVATAR3D_DEBUG=1 faults show their traceback.
    """
    sys.exit(_run())


def _run() -> int:
    before, threading.excepthook = threading.excepthook, _thread_failed
    try:
        from avatar3d.cli.commands import app

        code = int(app(prog_name="avatar3d", standalone_mode=False) or 0)
        if code == _INTERRUPTED:  # Typer catches KeyboardInterrupt, and says nothing
            print(f"avatar3d: {_AGAIN}", file=sys.stderr)
        return code
    except UserError as error:
        return _complain(str(error), 2, error)
    except KeyboardInterrupt as error:
        return _complain(_AGAIN, _INTERRUPTED, error)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is wrong and nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _complain(*_explained(error), error)
    finally:
        threading.excepthook = before


def _thread_failed(what: threading.ExceptHookArgs) -> None:
    """One sentence for what stops a thread of a library, such as that of TensorBoard's log."""
    if isinstance(what.exc_value, Exception):
        _complain(_explained(what.exc_value)[0], 1, what.exc_value)


def _explained(error: Exception) -> tuple[str, int]:
    """Sentence and exit code for an exception that is not ours."""
    usage = getattr(error, "format_message", None)
    if callable(usage):  # what the command-line parser raises: a bad option, a missing argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "avatar3d"
        return f"{usage().rstrip('.')}; see `{command} --help`.", 2
    if type(error).__name__ == "Abort":
        return "Interrupted.", 130
    return explained(error)


def _complain(message: str, code: int, error: BaseException) -> int:
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    print(f"avatar3d: {message}", file=sys.stderr)
    return code
