"""What a search raises."""


class SearchFailedError(RuntimeError):
    """The search has no result: too many of its trials failed, or none of them came to an end."""
