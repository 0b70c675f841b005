"""The errors a user can mend. The command line prints them as one sentence and ends with exit code 2."""

import signal


class SsodkitError(Exception):
    """Something a user can mend; its text says what is wrong, where, and how to mend it."""


class RecipeError(SsodkitError):
    """A recipe cannot be read, has a wrong value, or asks for parts that do not fit together."""


class DataError(SsodkitError):
    """Images or annotations are missing, unreadable or inconsistent."""


class TrainingError(SsodkitError):
    """A run cannot start, go on or be read: a loss that is not finite, a checkpoint that does not fit."""


class Interrupted(BaseException):
    """A signal stopped the program where nothing is lost; the command line ends with exit code 128 + its number.

    Like KeyboardInterrupt it is no Exception: nothing on its way shall take it for a broken image or a bad plug-in.
    """

    def __init__(self, message: str, received: signal.Signals) -> None:
        super().__init__(message)
        self.signal = received
