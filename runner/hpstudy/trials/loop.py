"""A worker group's part in a study: ask within the budget, report, tell, and take back what a dead predecessor held.

Everything here is storage; no process is started, and time passes only while a database is away.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_pruner, build_sampler
from hpstudy.samplers.choice import settle_sampler
from hpstudy.samplers.hooks import ContinuingPruner, hooks
from hpstudy.samplers.pruning import should_prune
from hpstudy.samplers.view import reported_value, study_view
from hpstudy.space.load import Suggest, load_suggest, read_space
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.limits import record_of
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.reading import Tally, read_tally
from hpstudy.storage.settings import Settings
from hpstudy.storage.urls import parse_url
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.breaking import Breaker, BrokenOff
from hpstudy.trials.budget import USED_UP, Next, Standing, Verdict, judge
from hpstudy.trials.enough import Enough, without_points
from hpstudy.trials.explaining import await_end, explain
from hpstudy.trials.failing import fail_trial, queue_next
from hpstudy.trials.metrics import record_metrics
from hpstudy.trials.outages import patiently
from hpstudy.trials.outcome import BROKEN_OFF, Outcome, conclude_unmade
from hpstudy.trials.ownership import TURN_SECONDS, GroupLocks, busy
from hpstudy.trials.retention import Retention
from hpstudy.trials.seeding import check_initial_values, seed_study

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class TrialLoop:
    """One group's hold on a study. Use as a context manager; entering waits for a predecessor of the same group to be
    gone (it held the group's lock) and fails what that left running.

    Args:
        suggest: makes up a trial's hyperparameters, in place of the study's space.
        sampler, pruner: objects, in place of those that the study names.
        output: folder of a run on this machine, for a study that names no place for its checkpoints.
        clock: the time, with a time zone.
        revision: of what the group was made from, where an operator made it.

    Raises on entering:
        InvalidStudyError: sampler, pruner or space cannot be made, or the stored study is another.
    """

    def __init__(
        self,
        spec: StudySpec,
        url: str,
        name: str,
        group: int = 0,
        *,
        suggest: Suggest | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        output: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        revision: str = "",
    ) -> None:
        self._clock = clock
        self._given_suggest, self._given_sampler, self._given_pruner = suggest, sampler, pruner
        self._spec = spec
        self._output = output
        self._revision = revision
        self._url = url
        self._name = name
        self._group = group
        self._asking = False
        self._breaker = Breaker()
        self._in_hand: set[int] = set()
        """Numbers of the trials that were handed out and not told."""

    def __enter__(self) -> "TrialLoop":
        with ExitStack() as stack:  # what is open is closed where the study is refused
            self._enter(stack)
            self._closing = stack.pop_all()
        return self

    def _enter(self, stack: ExitStack) -> None:
        self._space = None if self._given_suggest else read_space(self._spec)
        self._suggest = self._given_suggest or load_suggest(self._spec, self._space)
        self._open(stack)
        self._patiently(self._end_left)
        self._patiently(self._seed)
        if self._given_sampler is None:
            self._spec = self._patiently(self._settle_sampler)
        self.study = self._patiently(lambda: study_view(self.study, self._storage, self._spec, self._space))
        self._enough = self._patiently(lambda: Enough(self.study, self._spec))
        trials = self._patiently(lambda: len(self.study.get_trials(deepcopy=False)))
        self.study.sampler = self._given_sampler or build_sampler(
            self._spec, self._space, group=self._group, trials=trials
        )
        stack.callback(hooks(self.study.sampler).close)
        self.study.pruner = self._given_pruner or build_pruner(self._spec)
        if isinstance(self.study.pruner, ContinuingPruner):
            self.study.pruner.has_checkpoint = self._checkpoints.has_last
        self._patiently(partial(self._checkpoints.clean, self._all_trials, thorough=True))

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def settle(self, left: Outcome | None = None) -> Standing:
        """Without entering it: end what a process that is gone left running, and say how the study stands. For whoever
        starts processes that have a loop of their own.

        Args:
            left: how that ended; absent: its worker is gone.
        """
        with ExitStack() as stack:
            self._open(stack)
            ended = self._patiently(partial(self._end_left, left))
            finished = self._patiently(lambda: self.study.get_trials(deepcopy=False, states=_FINISHED))
            return Standing(self._patiently(self._judge), len(finished), ended)

    def _open(self, stack: ExitStack) -> None:
        self._url = parse_url(self._url).render_as_string(hide_password=False)
        self._checkpoints = Retention.open(self._spec, self._name, self._output)
        self._storage = self._patiently(lambda: open_storage(self._url), reconnect=False)
        stack.callback(self._storage.engine.dispose)
        self._locks = self._patiently(lambda: GroupLocks(self._url, self._name, self._group), reconnect=False)
        stack.callback(self._locks.close)
        self._patiently(self._locks.take)
        self.study = self._stored = self._patiently(lambda: open_study(self._storage, self._name, self._spec))

    def next(self, gpus: int = 0, sharing: int = 1) -> Assignment | Verdict:
        """Take the next trial, or learn why there is none. One whose hyperparameters cannot be made up ends here.

        Args:
            gpus: that the group holds.
            sharing: trials that hold them together, unless one has to run alone.

        Raises:
            InvalidStudyError: the sampler cannot work with this study, or its stopWhen.
        """
        try:
            answer = self._patiently(partial(self._ask, gpus, sharing))
            over = isinstance(answer, Verdict) and answer.next in (Next.SUCCEEDED, Next.FAILED)
            if over and not self._in_hand:  # else the last of them asks again
                self._patiently(partial(self._checkpoints.clean, self._all_trials, thorough=True, over=True))
            return answer
        except BrokenOff:
            if self._asking:  # it came while an error of the sampler's was on its way
                self._patiently(partial(self._end_making, BROKEN_OFF))
            return Verdict(Next.WAIT)
        except StorageUnreachableError:
            raise
        except BaseException as error:  # the sampler, a define-by-run function of the user's, or Ctrl-C in one
            if not self._asking:
                raise
            self._patiently(partial(self._end_making, conclude_unmade(error)))
            if isinstance(error, optuna.TrialPruned):
                return Verdict(Next.WAIT, after=0)
            if isinstance(error, InvalidStudyError) or not isinstance(error, Exception):
                raise
            _log.exception("a trial has no hyperparameters")
            if self._space is not None:
                message = f"the sampler cannot propose a trial: {error}"
                raise InvalidStudyError(reasons.SAMPLER_FAILED, message) from None
            return Verdict(Next.WAIT, after=0)

    def break_off(self) -> None:
        """From a signal's handler: there will be no more trials here. The one that is being made is handed back."""
        self._breaker.break_off()

    def ask_more(self, call: Callable[[], _T]) -> _T:
        """A call of a trial's own that reads or writes the storage: a parameter that it suggests while it runs."""
        return self._patiently(call)

    def keep(self) -> None:
        """Stay the owner of the group; to be called at least every ``KEEP_SECONDS`` of a long trial."""
        self._locks.keep()

    def disown(self) -> None:
        """In a forked child: leave the connections to the parent, which still uses them."""
        self._storage.engine.dispose(close=False)

    def report(self, assignment: Assignment, step: int, metrics: Mapping[str, Any], *, past: bool = False) -> bool:
        """Record an intermediate value of the objective; True when the trial should be pruned. One of the ``past``, of
        the trial that this one continues, prunes nothing, and is there for what pruners compare.

        With several objectives and no ``scalarize`` nothing is recorded and nothing pruned, as in Optuna.
        """
        self.keep()
        value = reported_value(self._spec, metrics)
        if value is not None:
            self._patiently(lambda: assignment.trial.report(value, step))
        sampler = hooks(self.study.sampler)
        self._patiently(partial(sampler.observe, self.study, assignment.number, step, metrics))
        return value is not None and self._patiently(partial(should_prune, assignment.trial, past=past))

    def tell(self, assignment: Assignment, outcome: Outcome) -> Outcome:
        """Record the end of a trial, once; its parameters are queued again where its class of failure has retries.

        Returns:
            The outcome as it was recorded: what a lost pod died of is not for the driver to know.
        """
        if outcome.failure is Failure.LOST and self._spec.workers.nodes > 1:
            # Another node's pod is gone; the operator may have seen how.
            outcome = self._patiently(partial(self._explain, assignment.number, outcome))
        outcome = self._patiently(partial(self._tell, assignment.number, outcome))
        self._in_hand.discard(assignment.number)
        self._patiently(partial(self._checkpoints.clean, self._all_trials, told=assignment.number))
        return outcome

    def verdict(self) -> Verdict:
        """How the study stands."""
        return self._patiently(self._judge)

    def _judge(self, *, asking: bool = False) -> Verdict:
        tally = self._tally()
        if asking and self._end_removed(tally):
            tally = self._tally()
        verdict = judge(tally, self._spec.budget, self._clock())
        if verdict.reason in USED_UP and tally.limit is None:  # so that a clock that is behind does not disagree
            self.study.set_user_attr(attributes.LIMIT, record_of(verdict.reason, self._spec.budget))
        if verdict.next in (Next.ASK, Next.WAIT) and (why := self._unwanted(tally.settings)):
            return Verdict(Next.LEAVE, message=why)
        if verdict.next is not Next.ASK or not asking or tally.counts.waiting:
            return verdict
        return without_points(self.study, self._spec, tally) or verdict

    def _unwanted(self, settings: Settings | None) -> str | None:
        return None if settings is None else settings.unwanted(self._group, self._revision)

    def _tally(self) -> Tally:
        """How the study stands; from here on the spec is what the operator says it is now."""
        with self._storage.engine.connect() as connection:
            tally = read_tally(connection, self._name, self._spec)
        if tally.settings is not None:
            self._spec = tally.settings.over(self._spec)
        return tally

    def _seed(self) -> None:
        with self._locks.holding(self._locks.budget):
            seed_study(self.study, self._storage, self._spec, self._space)

    def _settle_sampler(self) -> StudySpec:
        with self._locks.holding(self._locks.budget):
            return settle_sampler(self.study, self._spec, self._space)

    def _ask(self, gpus: int, sharing: int) -> Assignment | Verdict:
        with self._breaker.breakable():
            self._enough.look(self._spec, goes_on=lambda: self._judge().next is Next.ASK)
        in_turn = self._space is None and hooks(self.study.sampler).in_turn
        with self._locks.trying(self._locks.proposing, TURN_SECONDS) if in_turn else nullcontext(True) as turn:
            return self._take(gpus, sharing) if turn else busy()

    def _take(self, gpus: int, sharing: int) -> Assignment | Verdict:
        # Counting and creating under one lock keeps maxTrials exact over all groups (optuna#1883 overshoots); proposing
        # under it too shows every group's sampler the points of all others.
        with self._locks.trying(self._locks.budget, TURN_SECONDS) as free:
            if not free:
                return busy()
            if self._asking:  # the database went away in the middle of it
                self._end_unmade(Outcome(failure=Failure.LOST, message="the storage was away when it was made"))
            verdict = self._judge(asking=True)
            if verdict.next is not Next.ASK:
                return verdict
            self._asking = True
            with self._breaker.breakable(partial(self._end_unmade, BROKEN_OFF)):
                trial = self.study.ask()
                trial.set_user_attr(attributes.GROUP, self._group)
                if gpus:
                    alone = attributes.ALONE in trial.user_attrs
                    trial.set_user_attr(attributes.GPUS, gpus if alone else gpus / sharing)
                parameters = self._suggest(trial) if self._space is not None else None
        if parameters is None:  # a function of the user's may take its time
            with self._breaker.breakable(partial(self._end_unmade, BROKEN_OFF, unowned=False)):
                parameters = self._suggest(trial)
                check_initial_values(self._storage.get_trial(trial._trial_id))
        self._asking = False
        self._in_hand.add(trial.number)
        continues, alone = trial.user_attrs.get(attributes.CONTINUES), attributes.ALONE in trial.user_attrs
        return Assignment(trial.number, parameters, continues, alone, trial)

    def _end_making(self, outcome: Outcome) -> None:
        with self._locks.holding(self._locks.budget):
            self._end_unmade(outcome)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _explain(self, number: int, outcome: Outcome) -> Outcome:
        trial = self._storage.get_trial(self._trial_id(number))
        await_end(self.study, self._group, [trial])
        return explain(self.study, self._group, trial, outcome, shared_by=len(self._in_hand))

    def _tell(self, number: int, outcome: Outcome, *, began: bool = True) -> Outcome:
        """Record the end of a trial; returns it as it was recorded."""
        trial_id = self._trial_id(number)
        trial = self._storage.get_trial(trial_id)
        if trial.state.is_finished():
            return replace(outcome, again=attributes.runs_again(trial.user_attrs))  # told before the connection broke
        outcome = record_metrics(self._storage, trial_id, outcome)
        if outcome.values is None and attributes.NEXT in trial.user_attrs:
            outcome = Outcome(pruned=True, metrics=outcome.metrics, violations=outcome.violations)
            queue_next(self.study, trial)
        if outcome.failure is None and (place := self._checkpoints.place(number)):
            self._storage.set_trial_user_attr(trial_id, attributes.CHECKPOINT, place)
        if outcome.failure is not None:
            tally = self._tally()
            if outcome.failure is Failure.PREEMPTED and (why := self._unwanted(tally.settings)):
                outcome = replace(outcome, failure=Failure.SUSPENDED, message=why)
            continues = self._checkpoints.newest(trial)
            again = fail_trial(self.study, trial, outcome, self._spec.retries, continues=continues, began=began)
            return replace(outcome, again=again)
        if outcome.pruned:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, outcome.values)
        return outcome

    def _all_trials(self) -> list[optuna.trial.FrozenTrial]:
        """As the storage has them, which is not always as the sampler sees them. What has ended is read once."""
        return self._stored.get_trials(deepcopy=False)

    def _end_left(self, left: Outcome | None = None) -> dict[int, Outcome]:
        """End what a predecessor of the same group left running."""
        if left is None:  # the operator may know how, and is waited for
            await_end(self.study, self._group, self._running(self._group, unowned=False))
        with self._locks.holding(self._locks.budget):
            if left is None:
                self._end_group(self._group, "the worker that ran it is gone", unowned=True)
                return {}
            numbers = [trial.number for trial in self._running(self._group, unowned=True)]
            return {number: self._tell(number, left) for number in numbers}

    def _end_removed(self, tally: Tally) -> bool:
        """End what groups left running that the study has no more: no successor will. True where there was something.
        The caller holds the budget's lock."""
        ended = False
        for group in sorted(tally.running_groups - {self._group}):
            if group < self._spec.parallelism:
                continue
            with self._locks.instead_of(group) as taken:
                if taken:
                    self._end_group(group, "its worker group was removed")
                    ended = True
        return ended

    def _end_group(self, group: int, message: str, *, unowned: bool = False) -> None:
        """End the trials of a group whose lock is held here."""
        trials = self._running(group, unowned=unowned)
        for trial in trials:
            outcome = Outcome(failure=Failure.LOST, message=message)
            self._tell(trial.number, explain(self.study, group, trial, outcome, shared_by=len(trials)))

    def _end_unmade(self, outcome: Outcome, *, unowned: bool = True) -> None:
        """End the trial whose making failed. The caller holds the budget's lock, or knows that it is owned."""
        for trial in self._running(self._group, unowned=unowned):
            self._tell(trial.number, outcome, began=False)
        self._asking = False

    def _running(self, group: int, *, unowned: bool) -> list[optuna.trial.FrozenTrial]:
        """Running trials of a group, except those in hand.

        Args:
            unowned: those too of which no group is recorded. Each died as it was made, if this process holds the
                budget's lock; else another group may be making it.
        """
        nobody = group if unowned else None
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        found = [
            trial
            for trial in trials
            if trial.user_attrs.get(attributes.GROUP, nobody) == group and trial.number not in self._in_hand
        ]
        for trial in found:
            _log.warning("trial %d of group %d runs no more", trial.number, group)
        return found

    def _patiently(self, action: Callable[[], _T], *, reconnect: bool = True) -> _T:
        """Do it again while the database is away."""
        return patiently(action, self._locks.retake if reconnect else None)
