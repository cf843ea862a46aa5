"""A sigopt-server through SigOpt's own client: the calls that a study needs, patient with a server that is away."""

import importlib
import itertools
import logging
import time
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

OUTAGE_LIMIT = 300.0
"""Seconds that the server may be away while a trial is to be suggested: its pod may have moved to another node."""
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)
_PAGE = 100
_OVERLAP = 50
"""Known observations in a row after which older ones are not read again; those of workers that report at the same
moment may become visible out of order."""
_REFUSED = (401, 403)
_GONE = 404


class ServerAwayError(ConnectionError):
    """The server does not answer, or answers that it cannot now."""


class RequestRefusedError(ValueError):
    """The server understood the request and refuses it."""


class SigOptServer:
    """One account on a sigopt-server. No message contains the token.

    Args:
        url: of the server, without the version of its protocol.
        token: API token of a client.

    Raises:
        ImportError: the client is not installed.
    """

    def __init__(self, url: str, token: str) -> None:
        connection = importlib.import_module("sigopt").Connection(client_token=token, api_url=url.rstrip("/"))
        self._experiments = connection.experiments

    def create_experiment(self, definition: Mapping[str, Any]) -> str:
        """Make an experiment; returns its id.

        Raises:
            InvalidStudyError: the server refuses the definition.
        """
        try:
            experiment = self._patiently(lambda: self._experiments().create(**definition))
        except RequestRefusedError as error:
            raise InvalidStudyError(reasons.INVALID_SPACE, f"sampler: the SigOpt server refuses it: {error}") from None
        return str(experiment.id)

    def find_experiment(self, experiment: str) -> Any | None:
        """The experiment, None where it is gone or was deleted."""
        try:
            found = self._patiently(self._experiments(experiment).fetch)
        except RequestRefusedError:
            return None
        return None if found.state == "deleted" else found

    def update_experiment(self, experiment: str, **changes: Any) -> None:
        """Change fields of the experiment."""
        self._patiently(lambda: self._experiments(experiment).update(**changes))

    def suggest(self, experiment: str, trial: int) -> tuple[str, dict[str, Any]]:
        """Take a suggestion for a trial: its id, and its assignments."""
        suggestions = self._experiments(experiment).suggestions()
        suggestion = self._patiently(lambda: suggestions.create(metadata={"trial": trial}))
        return str(suggestion.id), dict(suggestion.assignments)

    def open_suggestions(self, experiment: str) -> list[str]:
        """Ids of the suggestions without observation."""
        suggestions = self._experiments(experiment).suggestions()
        pages = self._patiently(lambda: list(suggestions.fetch(state="open", limit=_PAGE).iterate_pages()))
        return [str(suggestion.id) for suggestion in pages]

    def delete_suggestion(self, experiment: str, suggestion: str) -> None:
        """Take a suggestion back; one that is gone already is no error."""
        try:
            self._patiently(self._experiments(experiment).suggestions(suggestion).delete)
        except RequestRefusedError as error:
            _log.info("suggestion %s was not deleted: %s", suggestion, error)

    def observed_trials(self, experiment: str, known: Container[int]) -> set[int]:
        """Trials that have an observation.

        Args:
            known: trials known to have one; the older ones of them are not read again, and may be missing.
        """

        def read() -> set[int]:
            found: set[int] = set()
            seen = 0
            # The latest first, page after page.
            for observation in self._experiments(experiment).observations().fetch(limit=_PAGE).iterate_pages():
                number = (observation.metadata or {}).get("trial")
                if number is None:  # somebody else's
                    continue
                seen = seen + 1 if int(number) in known else 0
                found.add(int(number))
                if seen >= _OVERLAP:
                    break
            return found

        return self._patiently(read)

    def observe(self, experiment: str, trial: int, body: Mapping[str, Any], *, patient: bool = True) -> None:
        """Report a trial.

        Args:
            body: ``suggestion`` or ``assignments``, and ``values`` or ``failed``.
            patient: try again while the server is away.

        Raises:
            RequestRefusedError: the server refuses it.
            ServerAwayError: it is away.
        """
        observations = self._experiments(experiment).observations()
        self._patiently(lambda: observations.create(**body, metadata={"trial": trial}), patient=patient)

    def _patiently(self, request: Callable[[], _T], *, patient: bool = True) -> _T:
        deadline = time.monotonic() + OUTAGE_LIMIT
        for attempt in itertools.count():
            try:
                return _answer(request)
            except ServerAwayError as error:
                if not patient or time.monotonic() > deadline:
                    raise
                delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                _log.warning("the SigOpt server does not answer, trying again in %g s: %s", delay, error)
                time.sleep(delay)
        raise AssertionError("unreachable")


def _answer(request: Callable[[], _T]) -> _T:
    exceptions = importlib.import_module("sigopt.exception")
    # From the fifth error on the client sleeps as well, longer and longer.
    importlib.import_module("sigopt.ratelimit").failed_status_rate_limit.clear()
    try:
        return request()
    except exceptions.ConnectionException as error:
        # The client's own message ends with the cause and begins with advice to write to a support that is gone.
        raise ServerAwayError(str(error.message).strip().rpartition("\n")[2]) from None
    except exceptions.ApiException as error:
        if error.status_code in _REFUSED:
            raise InvalidStudyError(
                reasons.SAMPLER_FAILED,
                f"sampler: the SigOpt server refuses the token of SIGOPT_API_TOKEN ({error.status_code}): "
                f"{error.message}",
            ) from None
        if error.status_code >= 500:
            raise ServerAwayError(f"{error.status_code}: {error.message}") from None
        raise RequestRefusedError(f"{error.status_code}: {error.message}") from None
