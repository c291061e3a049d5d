"""The one exception whose message is written for the person at the command line."""


class UserError(Exception):
    """A mistake the user can mend: the message says what was wrong, where, and what to do next.

    The entry points print the message alone, without a traceback, and exit with code 1.
    """
