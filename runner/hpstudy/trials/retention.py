"""Which checkpoints stay.

Any group may look at any time: what it reads of the storage can only be older than what is there. A trial that has not
ended keeps everything, and one that was ever beaten is never again the best, so that a group never removes what another
has just made the best.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.opening import open_store
from hpstudy.checkpoints.store import BEST, LABELS, LAST, CheckpointStore
from hpstudy.storage import attributes
from hpstudy.storage.feasible import is_feasible
from hpstudy.storage.pareto import pareto_front

_log = logging.getLogger(__name__)


def to_remove(
    trials: Sequence[FrozenTrial], stored: Iterable[int], spec: StudySpec, *, over: bool = False
) -> list[tuple[int, str]]:
    """What is of no more use: trials by number, and labels.

    Args:
        trials: all of the study, as the storage has them.
        stored: numbers of trials that have checkpoints.
        over: the study is, and trials that wait will not run.
    """
    assert spec.checkpoints is not None
    states = {trial.number: trial.state for trial in trials}
    best = set(_best(trials, spec)) if spec.checkpoints.keep == "best" else set()
    unfinished = [trial for trial in trials if not trial.state.is_finished()]
    sources = {
        trial.user_attrs.get(attributes.CONTINUES)
        for trial in unfinished
        if not (over and trial.state is TrialState.WAITING)
    }
    # And those that a trial about to end will hand over.
    sources |= {trial.user_attrs[attributes.NEXT]["continues"] for trial in unfinished if _hands_over(trial)}
    found = []
    for number in stored:
        state = states.get(number)
        if state is None or not state.is_finished():
            continue  # one that was made since the storage was read, or has still to publish
        keeps_best = number in best or (
            spec.checkpoints.keep == "all" and state in (TrialState.COMPLETE, TrialState.PRUNED)
        )
        keeps = {LAST: number in sources, BEST: keeps_best or (number in sources and spec.checkpoints.keep != "none")}
        found += [(number, label) for label in LABELS if not keeps[label]]
    return found


class Retention:
    """A group's hand on the study's checkpoints. Nothing of it ends a study: what cannot be removed now will be later.

    Args:
        store: None where the study keeps no checkpoints.
    """

    def __init__(self, store: CheckpointStore | None, spec: StudySpec) -> None:
        self._store = store
        self._spec = spec

    @classmethod
    def open(cls, spec: StudySpec, stored_name: str, output: Path | None) -> Self:
        """Open the store, and see that it can be written to before any trial is run in vain.

        Raises:
            InvalidStudyError: it cannot.
        """
        if spec.checkpoints is None or output is None:
            return cls(None, spec)
        store = open_store(spec, stored_name, output)
        assert store is not None
        try:
            store.check()
        except Exception as error:  # each client has its own
            raise InvalidStudyError(
                reasons.INVALID_CHECKPOINTS, f"checkpoints: no trial could leave one: {type(error).__name__}: {error}"
            ) from None
        return cls(store, spec)

    def clean(
        self,
        read: Callable[[], Sequence[FrozenTrial]],
        *,
        told: int | None = None,
        thorough: bool = False,
        over: bool = False,
    ) -> None:
        """Remove what is of no more use.

        Args:
            read: gets all trials of the study from the storage.
            told: the trial that has just ended here.
            thorough: look for what crashes left as well, in every trial's folder.
            over: see :func:`to_remove`.
        """
        if self._store is None:
            return
        trials = read()
        with self._harmless("removed"):
            stored = self._store.numbers()
            gone = to_remove(trials, stored, self._spec, over=over)
            whole = {number for number, _ in gone if all((number, label) in gone for label in LABELS)}
            for number, label in gone:
                # Of a trial that keeps its best one, the last went when it was told.
                if thorough or number in whole or number == told:
                    self._store.remove(number, label)
            if thorough:
                finished = {trial.number for trial in trials if trial.state.is_finished()}
                for number in finished.intersection(stored) - whole:
                    self._store.tidy(number)

    def place(self, number: int) -> str | None:
        """Where a trial's best checkpoint is."""
        if self._store is None:
            return None
        with self._harmless("found"):
            return self._store.location(number, BEST)
        return None

    def has_last(self, number: int) -> bool:
        """Whether there is something of the trial to continue from."""
        if self._store is not None:
            with self._harmless("found"):
                return self._store.exists(number, LAST)
        return False

    def newest(self, trial: FrozenTrial) -> int | None:
        """The trial that another run of this one's parameters continues: itself, or where it left no checkpoint the one
        that it continued."""
        earlier: int | None = trial.user_attrs.get(attributes.CONTINUES)
        if self._store is not None:
            with self._harmless("found"):
                return trial.number if self._store.exists(trial.number, LAST) else earlier
        return trial.number

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception:  # each client has its own
            _log.warning("checkpoints could not be %s", what, exc_info=True)


def _hands_over(trial: FrozenTrial) -> bool:
    return attributes.NEXT in trial.user_attrs


def _best(trials: Sequence[FrozenTrial], spec: StudySpec) -> list[int]:
    """As the status lists them: see storage/best.py."""
    able = [trial for trial in trials if is_feasible(trial)]
    directions = [objective.direction for objective in spec.objectives]
    if not able:
        return []
    if len(directions) > 1:
        return [able[index].number for index in pareto_front([trial.values for trial in able], directions)]
    sign = 1.0 if directions[0] == "minimize" else -1.0
    return [min(able, key=lambda trial: (sign * trial.values[0], trial.number)).number]
