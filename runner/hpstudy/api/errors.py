"""The one error for what a user can correct."""


class InvalidStudyError(ValueError):
    """A study that cannot run as written.

    ``reason`` is one of :mod:`hpstudy.api.reasons` and becomes the condition's reason in a cluster; ``message`` says
    what to change. The command line prints the message and exits with code 2.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
