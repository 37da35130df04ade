"""The one base class of everything that a user can mend: bad options, data, traces and models."""


class UserError(ValueError):
    """Wrong input. The message is one sentence or two: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; every other exception keeps its traceback.
    """
