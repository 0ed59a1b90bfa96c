"""The one exception for input a user can mend."""


class InputError(ValueError):
    """Something the caller gave cannot be used; the message says what to do instead, in one line."""
