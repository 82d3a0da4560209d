"""Errors that a user can cause and correct.

All of them derive from :class:`UserError`. The command line prints only the message, without a traceback, and exits
with :data:`EXIT_USER_ERROR`. A message says what is wrong, where (``file:line`` or dotted key), and what to do.
"""

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: a signal stopped training, and it was saved


class UserError(Exception):
    """A mistake of the user; ``str(error)`` is the whole message."""


class ConfigError(UserError):
    """A config file or a command-line override that cannot be used."""


class DataError(UserError):
    """A text file, a corpus or a tokenizer that cannot be used."""


class ModelError(UserError):
    """A model folder or a checkpoint that is missing, damaged or does not fit."""


class OutOfMemoryError(UserError):
    """Memory ran out; use a smaller batch, a smaller model or a larger machine."""


class ReportedElsewhereError(UserError):
    """Another process of the run has printed the error; this process ends without a message."""
