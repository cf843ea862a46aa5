"""A search as it runs: rank zero owns the study, and hands each trial to all ranks."""

import copy
import logging
import math
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import optuna
import torch.distributed as dist
from transformers import Trainer
from transformers.trainer_utils import BestRun

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.metrics import find_metric
from hpstudy.search.arguments import fields_set
from hpstudy.search.clock import Clock, NoClock
from hpstudy.search.continuing import continued, count_done
from hpstudy.search.errors import SearchFailedError
from hpstudy.search.names import Names
from hpstudy.search.plan import Plan
from hpstudy.search.proxies import Given, Hyperparameters, SharedTrial
from hpstudy.search.ranks import Alone, Ended, Ranks, Several, root_of
from hpstudy.search.results import best_runs, log_end
from hpstudy.search.runs import Run
from hpstudy.search.snapshot import Snapshot
from hpstudy.search.sweeps import variables
from hpstudy.storage.attributes import Failure
from hpstudy.storage.errors import StorageRefusedError, StorageUnreachableError, storage_errors
from hpstudy.training.faults import is_out_of_memory, lost_a_peer
from hpstudy.training.isolation import Baseline, reset
from hpstudy.training.values import plain
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next
from hpstudy.trials.causes import Cause, Kind
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude, conclude_pruned

_log = logging.getLogger(__name__)

_MESSAGE_LIMIT = 2000  # characters
_NOT_CAUGHT = "catch does not name the error of a trial"
_loops: "weakref.WeakSet[TrialLoop]" = weakref.WeakSet()


def _disown() -> None:
    """A forked worker of a DataLoader must not speak on rank zero's connection to the database."""
    for loop in _loops:
        loop.disown()


os.register_at_fork(after_in_child=_disown)


class Session:
    """One call of ``hyperparameter_search``."""

    def __init__(self, trainer: Trainer, plan: Plan, hp_name: Callable[[Any], str] | None) -> None:
        self._trainer = trainer
        self._plan = plan
        self._hp_name = hp_name
        self._base = copy.copy(trainer.args)
        self._names = Names()
        self._loop: TrialLoop | None = None
        self._assignment: Assignment | None = None
        self._given: SharedTrial | None = None
        self._error: BaseException | None = None
        self._unmade: Exception | None = None
        """What ``hp_space`` raised, where ``catch`` decides on it."""
        self._deadline: float | None = None
        self._events = plan.events
        self._clock: Clock = NoClock()
        self._started = 0.0
        self._storage_lock = threading.RLock()  # the main thread's, and the watchdog's when a rank is stuck
        several = trainer.args.world_size > 1
        if several and not dist.is_initialized():
            raise InvalidStudyError(
                reasons.INVALID_OPTION, "the Trainer has several processes without torch.distributed; use torchrun"
            )
        if not several and dist.is_initialized() and dist.get_world_size() > 1:
            raise InvalidStudyError(
                reasons.INVALID_OPTION,
                f"there are {dist.get_world_size()} processes, and the Trainer takes each for itself; on CPUs, give "
                "TrainingArguments(use_cpu=True), or ACCELERATE_USE_CPU=true in the environment",
            )
        timeout = timedelta(seconds=trainer.args.ddp_timeout)
        self._ranks: Ranks = Several(self._give_up, timeout) if several else Alone()

    def run(self) -> BestRun | list[BestRun]:
        """Run trials until the budget is used up; returns the best on every rank.

        Raises:
            InvalidStudyError: the search cannot run as it was called.
            SearchFailedError: too many trials failed, or none completed.
        """
        snapshot = Snapshot(self._trainer)
        baseline = Baseline.take()

        def clean() -> None:
            snapshot.restore()
            reset(baseline)

        with ExitStack() as stack:
            stack.callback(baseline.release)
            stack.callback(snapshot.finish)
            stack.callback(self._ranks.close)
            clean()
            self._ranks.begin(0)
            self._ranks.share(lambda: self._open(stack))
            index = 1
            while True:
                self._ranks.begin(index)
                task = self._ranks.share(self._next)
                if task is None:
                    break
                if "leave" in task:
                    _log.info("the worker group leaves: %s", task["leave"])
                    # What the script does with the best trial is for when there is one.
                    raise SystemExit(0)
                os.environ.update(task["environment"])
                baseline.environment.update(task["environment"])
                self._run_trial(task, clean)
                index += 1
            found = self._ranks.share(self._best)
        runs = [BestRun(*each) for each in found]
        return runs[0] if self._plan.spec.is_scalar else runs

    def _open(self, stack: ExitStack) -> None:
        plan = self._plan
        if plan.options.sweep_id or not plan.options.load_if_exists:
            plan = self._plan = continued(plan)
        suggest = self._suggest if plan.hp_space is not None else None
        loop = TrialLoop(
            plan.spec,
            plan.url,
            plan.name,
            plan.group,
            suggest=suggest,
            sampler=plan.sampler,
            pruner=plan.pruner,
            revision=plan.revision,
        )
        verbosity = optuna.logging.get_verbosity()
        self._loop = stack.enter_context(loop)
        stack.push(self._end_held)
        optuna.logging.set_verbosity(verbosity)  # the user's; opening a study silences Optuna
        if plan.sampler is not None and loop.study.get_trials(deepcopy=False):
            plan.sampler.reseed_rng()  # or it would begin with the same trials again
        if plan.options.timeout is not None:
            self._deadline = time.monotonic() + plan.options.timeout
        _loops.add(loop)
        self._clock = plan.open_clock()

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Call the user's ``hp_space``, once for a trial."""
        self._given, self._unmade = SharedTrial(self._ranks, trial), None
        assert self._plan.hp_space is not None
        try:
            with storage_errors():
                values = self._plan.hp_space(self._given)
            if values is None:
                values = trial.params
            if not isinstance(values, Mapping):
                raise TypeError(
                    f"hp_space returned {type(values).__name__}, it must return the hyperparameters by name"
                )
            # It may have set them by itself, on the Trainer's arguments of this rank.
            values = fields_set(self._trainer.args, self._base) | dict(values)
            return {name: _plain(value) for name, value in values.items()}
        except (optuna.TrialPruned, StorageUnreachableError, StorageRefusedError):
            raise
        except Exception as error:
            if self._plan.options.catch is None:  # it counts as a failed trial, of which the loop allows so many
                raise
            self._unmade = error
            return {}

    def _count_done(self) -> int:
        assert self._loop is not None
        return count_done(self._loop.study, self._plan)

    def _next(self) -> dict[str, Any] | None:
        """On rank zero: the next trial, or why the group leaves; None where the search is over."""
        assert self._loop is not None
        catch = self._plan.options.catch
        while self._deadline is None or time.monotonic() < self._deadline:
            if catch is not None and self._ask_more(self._count_done) >= self._plan.spec.budget.max_trials:
                return None
            if self._loop.study._stop_flag:
                return None
            self._given = None
            with self._storage_lock:
                self._allow_stop()
                assigned = self._loop.next(self._plan.gpus)
            if isinstance(assigned, Assignment):
                self._assignment, self._started = assigned, time.monotonic()
                unmade, self._unmade = self._unmade, None
                if unmade is not None:
                    message = f"no hyperparameters: {type(unmade).__name__}: {unmade}"
                    _log.error("a trial has no hyperparameters", exc_info=unmade)
                    self._tell(Outcome(failure=Failure.ERROR, message=message))
                    if catch is not None and not isinstance(unmade, catch):
                        raise SearchFailedError(f"{_NOT_CAUGHT}: {message}") from unmade
                    continue
                self._clock.start(assigned.number)
                self._events.emit("trial", number=assigned.number, parameters=assigned.parameters)
                task = {"number": assigned.number, "values": assigned.parameters, "known": None}
                task["environment"] = variables(self._loop.study, self._plan.spec)
                if self._plan.spec.backend != "optuna":
                    return task
                given = self._given or SharedTrial(self._ranks, assigned.trial)
                given.on_all_ranks(self._ask_more)
                self._given = given
                return task | {"known": given.describe()}
            if assigned.next is Next.LEAVE:
                return {"leave": assigned.message}
            if assigned.next is Next.FAILED:
                raise SearchFailedError(assigned.message)
            if assigned.next is not Next.WAIT:
                return None
            time.sleep(assigned.after)
        return None

    def _run_trial(self, task: Mapping[str, Any], clean: Callable[[], None]) -> None:
        number, ranks = task["number"], self._ranks
        given: Given = Hyperparameters(task["values"])
        if task["known"] is not None:
            given = self._given if self._given is not None else SharedTrial(ranks, known=task["known"])
        run = Run(
            self._trainer,
            self._base,
            given,
            task["values"],
            self._names,
            tuple(self._plan.spec.objectives),
            self._plan.compute,
            lambda metrics, step: ranks.share(lambda: self._report(metrics, step)),
            lambda: ranks.share(lambda: self._name(number, given)),
            output_dir=self._plan.output_dir,
            named=self._hp_name is not None,
        )
        ended = Ended()
        try:
            run.train()
        except optuna.TrialPruned as error:
            ended = Ended(pruned=True)
            if not run.pruned:  # the user's code did: the other ranks may know nothing of it
                message = (
                    f"rank {ranks.rank} raised TrialPruned, and others train on; raise it on all ranks at the same step"
                )
                ended = Ended(pruned=True, cause=self._cause(error, message))
        except Exception as error:
            ended = self._failed(error)
            _log.error(
                "trial %d failed on rank %d\n%s", number, ranks.rank, ended.cause.traceback if ended.cause else ""
            )
            _let_go(error)
            self._error = error
        chosen = run.chosen or {}
        self._given = None
        self._conclude(ranks.end(ended, clean), chosen)

    def _conclude(self, all_ended: list[Ended], metrics: Mapping[str, Any]) -> None:
        root = root_of(all_ended)
        if self._ranks.rank == 0:
            spec = self._plan.spec
            if root is not None and root.cause is not None:
                self._tell(Outcome(failure=root.failure, message=root.cause.message, metrics=metrics))
            elif any(each.pruned for each in all_ended):
                self._tell(conclude_pruned(metrics, spec))
            else:
                self._tell(self._judged(metrics))
        error, self._error = self._error, None
        if root is None or root.cause is None:
            return
        if root.invalid is not None:
            raise InvalidStudyError(root.invalid, root.cause.message)
        if self._plan.options.catch is not None and not root.caught:
            raise SearchFailedError(f"{_NOT_CAUGHT}: {root.cause.message}") from error

    def _judged(self, metrics: Mapping[str, Any]) -> Outcome:
        """How a trial ended that trained to its end. In a search by itself one that diverged is no failure, of which
        few are allowed."""
        spec = self._plan.spec
        outcome = conclude(metrics, spec)
        values = [find_metric(metrics, objective.metric) for objective in spec.objectives]
        diverged = any(isinstance(value, float) and not math.isfinite(value) for value in values)
        if outcome.failure is None or not diverged or self._plan.driver:
            return outcome
        _log.warning("%s: the trial counts as pruned", outcome.message)
        return conclude_pruned(metrics, spec)

    def _failed(self, error: Exception) -> Ended:
        invalid = error.reason if isinstance(error, InvalidStudyError) else None
        message = str(error) if invalid else f"{type(error).__name__}: {error}"
        lost = lost_a_peer(error) or isinstance(error, SearchFailedError)  # rank zero could not answer
        catch = self._plan.options.catch
        return Ended(
            cause=self._cause(error, message, Kind.SECONDARY if lost else Kind.RAISED),
            failure=Failure.OOM if is_out_of_memory(error) else Failure.ERROR,
            invalid=invalid,
            caught=catch is not None and isinstance(error, catch),
        )

    def _cause(self, error: Exception, message: str, kind: Kind = Kind.RAISED) -> Cause:
        return Cause(
            rank=self._ranks.rank,
            kind=kind,
            message=message[:_MESSAGE_LIMIT],
            traceback="".join(traceback.format_exception(error)),
            at=time.time(),
        )

    def _name(self, number: int, given: Given) -> str:
        """On rank zero."""
        if self._hp_name is None:
            return f"run-{number}"
        if isinstance(given, SharedTrial):
            given.together = False
        try:
            return str(self._hp_name(given))
        finally:
            if isinstance(given, SharedTrial):
                given.together = True

    def _report(self, metrics: dict[str, Any], step: int) -> bool:
        """On rank zero."""
        assert self._loop is not None
        assert self._assignment is not None
        with self._storage_lock:
            prune = self._loop.report(self._assignment, step, metrics)
        self._events.emit("report", number=self._assignment.number, step=step, metrics=metrics)
        return prune

    def _ask_more(self, call: Callable[[], Any]) -> Any:
        assert self._loop is not None
        with self._storage_lock:
            return self._loop.ask_more(call)

    def _tell(self, outcome: Outcome) -> None:
        """On rank zero, once for a trial."""
        assert self._loop is not None
        with self._storage_lock:
            assignment, self._assignment = self._assignment, None
            if assignment is not None:
                self._allow_stop()
                outcome = self._loop.tell(assignment, outcome)
                self._clock.stop()
                self._events.emit_end(assignment.number, outcome, time.monotonic() - self._started)
                if self._events.descriptor is None:  # nobody else shows it
                    ended = partial(log_end, self._loop.study, self._plan, assignment.number, outcome.message)
                    self._loop.ask_more(ended)

    def _allow_stop(self) -> None:
        """Let the sampler, and the user's functions, call ``study.stop()`` in this thread, as in ``Study.optimize``."""
        assert self._loop is not None
        self._loop.study._thread_local.in_optimize_loop = True

    def _end_held(self, _: Any, error: BaseException | None, __: Any) -> None:
        """On rank zero, as the search ends: the trial that it holds has no end yet where it was told to stop (Ctrl-C),
        or could not go on with it."""
        outcome = Outcome(failure=Failure.PREEMPTED, message="the search was told to stop")
        if isinstance(error, Exception):
            outcome = Outcome(failure=Failure.ERROR, message=f"{type(error).__name__}: {error}")
        self._tell(outcome)

    def _give_up(self, root: Ended) -> None:
        """On rank zero, in the watchdog's thread: the main thread waits in a collective for a rank that failed."""
        assert root.cause is not None
        self._tell(Outcome(failure=root.failure, message=root.cause.message))

    def _best(self) -> list[list[Any]]:
        """On rank zero."""
        assert self._loop is not None
        return best_runs(self._loop.study, self._plan)


def _plain(value: Any) -> Any:
    """Numbers of NumPy's and tensors as Python's own: the ranks speak JSON."""
    return {name: _plain(each) for name, each in value.items()} if isinstance(value, dict) else plain(value)


def _let_go(error: BaseException | None) -> None:
    """An error holds the frames that it came through, and these the model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
