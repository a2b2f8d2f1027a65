"""User errors: one line on stderr each."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..inputs_pianobind import explain


class UserError(Exception):
    """An error caused by the user's input; its message is the line on stderr."""


@contextmanager
def user_errors(path: object, writing: bool = False) -> Iterator[None]:
    """Turns errors about a file into a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        if writing:
            reason = error.strerror or error
            raise UserError(f"{path}: cannot be written ({reason}); choose another place") from error
        raise UserError(explain(path, error)) from error
    except (ValueError, ImportError) as error:  # an ImportError's message says how to install the extra
        raise UserError(explain(path, error)) from error


def check_folder_of(path: str | os.PathLike) -> None:
    """Refuses a file to be written whose folder is not there, before any work is done.

    Raises:
        UserError: it does not exist.
    """
    if not Path(path).parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it first")


def complain(message: object) -> None:
    """Prints one line on stderr."""
    print(f"pianobind: {' '.join(str(message).split())}", file=sys.stderr)


__all__ = ["UserError", "check_folder_of", "complain", "user_errors"]
