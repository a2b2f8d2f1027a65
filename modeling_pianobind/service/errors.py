"""User errors: one line on stderr each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


def complain(message: object) -> None:
    """Prints one line on stderr."""
    print(f"pianobind: {' '.join(str(message).split())}", file=sys.stderr)


__all__ = ["UserError", "complain", "user_errors"]
