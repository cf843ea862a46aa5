"""A sigopt-server through SigOpt's own client: the calls that a study needs."""

import importlib
import logging
from collections.abc import Callable, Mapping, Set
from typing import Any, TypeVar

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.sigopt_engine import MISSING

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_TIMEOUT = 60  # seconds for one request
_PAGE = 100
_REFUSED = (401, 403)


class ServerAwayError(ConnectionError):
    """The server does not answer, or answers that it cannot now."""


class RequestRefusedError(ValueError):
    """The server understood the request and refuses it."""


class SigOptServer:
    """One account on a sigopt-server. No message contains the token. Any call may raise :class:`ServerAwayError`.

    Args:
        url: of the server, without the version of its protocol.
        token: API token of a client.

    Raises:
        ImportError: the client package is not installed; the message says how.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            connect = importlib.import_module("sigopt").Connection
        except ImportError as error:
            raise ImportError(MISSING.format(error)) from None
        self._experiments = connect(client_token=token, api_url=url.rstrip("/"), timeout=_TIMEOUT).experiments

    def create_experiment(self, definition: Mapping[str, Any]) -> str:
        """Make an experiment; returns its id.

        Raises:
            InvalidStudyError: the server refuses the definition.
        """
        try:
            experiment = _answer(lambda: self._experiments().create(**definition))
        except RequestRefusedError as error:
            raise InvalidStudyError(reasons.INVALID_SPACE, f"sampler: the SigOpt server refuses it: {error}") from None
        return str(experiment.id)

    def find_experiment(self, experiment: str) -> Any | None:
        """The experiment, None where it is gone or was deleted."""
        try:
            found = _answer(self._experiments(experiment).fetch)
        except RequestRefusedError:
            return None
        return None if found.state == "deleted" else found

    def update_experiment(self, experiment: str, **changes: Any) -> None:
        """Change fields of the experiment; one that the server keeps is no error."""
        try:
            _answer(lambda: self._experiments(experiment).update(**changes))
        except RequestRefusedError as error:
            _log.warning("the SigOpt server does not change experiment %s: %s", experiment, error)

    def suggest(self, experiment: str, trial: int) -> tuple[str, dict[str, Any]]:
        """Take a suggestion for a trial: its id, and its assignments.

        Raises:
            RequestRefusedError: the experiment was deleted.
        """
        suggestions = self._experiments(experiment).suggestions()
        suggestion = _answer(lambda: suggestions.create(metadata={"trial": trial}))
        return str(suggestion.id), dict(suggestion.assignments)

    def open_suggestions(self, experiment: str) -> list[str]:
        """Ids of the suggestions without observation."""
        suggestions = self._experiments(experiment).suggestions()
        pages = _answer(lambda: list(suggestions.fetch(state="open", limit=_PAGE).iterate_pages()))
        return [str(suggestion.id) for suggestion in pages]

    def delete_suggestion(self, experiment: str, suggestion: str) -> None:
        """Take a suggestion back; one that is gone already is no error."""
        try:
            _answer(self._experiments(experiment).suggestions(suggestion).delete)
        except RequestRefusedError as error:
            _log.info("suggestion %s was not deleted: %s", suggestion, error)

    def observed_trials(self, experiment: str, wanted: Set[int]) -> set[int]:
        """Those of the wanted trials that have an observation."""

        def read() -> set[int]:
            found: set[int] = set()
            # The latest first, page after page.
            for observation in self._experiments(experiment).observations().fetch(limit=_PAGE).iterate_pages():
                number = (observation.metadata or {}).get("trial")
                if number is not None:  # else somebody else's
                    found |= {int(number)} & wanted
                if len(found) == len(wanted):
                    break
            return found

        return _answer(read)

    def observe(self, experiment: str, trial: int, body: Mapping[str, Any]) -> None:
        """Report a trial.

        Args:
            body: ``suggestion`` or ``assignments``, and ``values`` or ``failed``.

        Raises:
            RequestRefusedError: the server refuses it.
        """
        observations = self._experiments(experiment).observations()
        _answer(lambda: observations.create(**body, metadata={"trial": trial}))


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
