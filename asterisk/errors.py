"""How a command tells the user what went wrong: one line on standard error and exit code 2."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress


class InputError(ValueError):
    """A mistake the user can correct. The message names the file, the row and what to do, in one line."""


def run(main: Callable[[], None]) -> None:
    """Run a command: exit code 2 and one line for a user's mistake, 130 for Ctrl-C."""
    try:
        main()
    except InputError as error:
        message = str(error)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        close_output()
        return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            close_output()
            message = "the disk is full; free some space and run the same command again"
        elif error.errno == errno.EROFS:
            message = f"{error.filename}: the file system is read-only; choose another place"
        elif error.filename:
            message = f"{error.filename}: {error.strerror}"
        elif isinstance(
            error, PermissionError | FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError
        ):
            message = str(error)
        else:
            raise
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("asterisk"):
            raise
        message = f"the package {error.name} is not installed; in a clone, `make install` brings all"
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def close_output() -> None:
    """Let what standard output still holds go nowhere: Python would fail once more when it writes that at exit."""
    with suppress(OSError, ValueError):  # no file, in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, 200 characters at most."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:200] or type(error).__name__
