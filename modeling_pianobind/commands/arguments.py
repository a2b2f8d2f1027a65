"""Numbers on the command line."""

import argparse
import math


def whole_number(text: str) -> int:
    """A count of an argument.

    Raises:
        argparse.ArgumentTypeError: it is not a whole number of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_number(text: str, what: str = "a number") -> float:
    """A finite number above 0; `what` it counts stands in the error.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} above 0")
    return number


__all__ = ["positive_number", "whole_number"]
