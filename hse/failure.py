"""The root of what a user can mend: told in one line, without a trace."""


class Failure(Exception):
    """Something in the user's hands keeps a command from doing its work; the message says what to do."""
