"""The package's own errors. The command line tells them in a line; any other is a fault in it."""


class InputError(ValueError):
    """A value that is not allowed; its message names the parameter, the value and what is."""


class Failure(RuntimeError):
    """Something outside the program has failed, such as a download or a worker."""
