"""Errors that a user can cause and mend.

Everything raised on purpose for a person derives from :class:`UserError`; the command line prints its message alone,
without a traceback, and exits with :data:`EXIT_USER_ERROR`. A message says what is wrong, where (``file:line`` or
dotted key), and what to do.
"""

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # "try again later" of sysexits.h: training was stopped by a signal, and saved


class UserError(Exception):
    """A mistake in what the user gave; ``str(error)`` is the whole message."""


class ConfigError(UserError):
    """A config file or a command-line override that cannot be used."""


class DataError(UserError):
    """A text file, a corpus or a tokenizer that cannot be used."""


class ModelError(UserError):
    """A model folder or a checkpoint that is missing, damaged or does not fit."""


class OutOfMemoryError(UserError):
    """Memory ran out; a smaller batch, a smaller model or a larger machine helps."""


class ToldElsewhereError(UserError):
    """Another process of the run has told why it ends; this one ends without a word."""
