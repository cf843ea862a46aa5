"""The trial as ``model_init``, ``hp_space`` and ``hp_name`` get it: the same object on every rank."""

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import BaseTrial

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.ranks import Ranks
from hpstudy.training.values import plain

_NESTED = (list, tuple, dict)
Ask = Callable[[Callable[[], Any]], Any]
"""Runs a call of the trial's, again while the database is away."""


class SharedTrial(BaseTrial):
    """An Optuna trial on every rank: rank zero asks the sampler, and the others get its answers, in the order in which
    all of them ask.

    Args:
        trial: on rank zero, the trial itself.
        known: on the other ranks, what ``describe`` said on rank zero.
    """

    def __init__(self, ranks: Ranks, trial: optuna.Trial | None = None, known: Mapping[str, Any] | None = None) -> None:
        self._ranks = ranks
        self._ask: Ask = lambda call: call()
        self._trial = trial
        known = known or {}
        self._number: int = known.get("number", -1)
        self._params: dict[str, Any] = dict(known.get("params", {}))
        self._distributions = {
            name: json_to_distribution(text) for name, text in known.get("distributions", {}).items()
        }
        self._user_attrs: dict[str, Any] = dict(known.get("attrs", {}))
        self._begun = known.get("begun")
        self.together = trial is None
        """Whether all ranks ask; ``hp_space`` and ``hp_name`` are called on rank zero alone."""
        self.read: set[str] = set()
        """Parameters that were asked for by name."""
        self.read_all = False
        """All of them were."""

    def on_all_ranks(self, ask: Ask) -> None:
        """On rank zero: from now on all ranks ask. What was asked before is not of ``model_init``."""
        self._ask, self.together = ask, True

    def describe(self) -> dict[str, Any]:
        """On rank zero, what the other ranks must know."""
        assert self._trial is not None
        begun = self._trial.datetime_start
        return {
            "number": self._trial.number,
            "params": {name: self._internal(name, value) for name, value in self._trial.params.items()},
            "distributions": {name: distribution_to_json(d) for name, d in self._trial.distributions.items()},
            "attrs": self._trial.user_attrs,
            "begun": begun.isoformat() if begun else None,
        }

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As ``optuna.Trial.suggest_float``."""
        return float(self._suggest(name, lambda t: t.suggest_float(name, low, high, step=step, log=log)))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """As ``suggest_float``."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """As ``suggest_float`` with ``log``."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """As ``suggest_float`` with ``step``."""
        return self.suggest_float(name, low, high, step=q)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As ``optuna.Trial.suggest_int``."""
        return int(self._suggest(name, lambda t: t.suggest_int(name, low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As ``optuna.Trial.suggest_categorical``.

        Raises:
            InvalidStudyError: a storage cannot keep a choice.
        """
        # NumPy's own as Python's; what is nested is the user's, who gets it as it is. The storage gets it as JSON gives
        # it back: a tuple would be a list the next time, which Optuna takes for another space.
        given: list[Any] = [choice if isinstance(choice, _NESTED) else plain(choice) for choice in choices]
        try:
            kept = [json.loads(json.dumps(choice)) if isinstance(choice, _NESTED) else choice for choice in given]
            json.dumps(kept)
        except TypeError as error:
            raise InvalidStudyError(
                reasons.INVALID_SPACE,
                f"hp_space: the choices of {name} cannot be stored ({error}); search their names, and look them up",
            ) from None
        chosen = self._suggest(name, lambda t: t.suggest_categorical(name, kept))
        return given[kept.index(chosen)] if isinstance(chosen, _NESTED) else chosen

    def report(self, value: float, step: int) -> None:
        """As ``optuna.Trial.report``; rank zero's counts."""
        if self._trial is not None:
            trial = self._trial
            self._ask(lambda: trial.report(value, step))

    def should_prune(self) -> bool:
        """As ``optuna.Trial.should_prune``, rank zero's answer on every rank."""
        return bool(self._on_all(lambda trial: trial.should_prune()))

    def set_user_attr(self, key: str, value: Any) -> None:
        """As ``optuna.Trial.set_user_attr``; rank zero's counts."""
        self._user_attrs[key] = value
        if self._trial is not None:
            trial = self._trial
            self._ask(lambda: trial.set_user_attr(key, value))

    def set_constraint(self, key: str, value: float) -> None:
        """As ``optuna.Trial.set_constraint``; rank zero's counts."""
        if self._trial is not None:
            trial = self._trial
            self._ask(lambda: trial.set_constraint(key, value))

    @property
    def number(self) -> int:
        """Of the trial in its study."""
        return self._trial.number if self._trial is not None else self._number

    @property
    def params(self) -> dict[str, Any]:
        """What was suggested so far."""
        self.read_all = True
        if self._trial is not None:
            return dict(self._trial.params)
        return {name: self._distributions[name].to_external_repr(value) for name, value in self._params.items()}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of what was suggested so far."""
        return dict(self._trial.distributions) if self._trial is not None else dict(self._distributions)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Those that were set."""
        return dict(self._trial.user_attrs) if self._trial is not None else dict(self._user_attrs)

    @property
    def constraints(self) -> dict[str, float]:
        """Those that were set, on rank zero."""
        return dict(self._trial.constraints) if self._trial is not None else {}

    @property
    def datetime_start(self) -> datetime.datetime | None:
        """When it was made."""
        if self._trial is not None:
            return self._trial.datetime_start
        return datetime.datetime.fromisoformat(self._begun) if self._begun else None

    @property
    def study(self) -> optuna.Study:
        """The study, which rank zero alone has.

        Raises:
            AttributeError: on another rank.
        """
        if self._trial is None:
            raise AttributeError("trial.study: rank zero alone opens the storage; ask for number, params, user_attrs")
        return self._trial.study

    def _suggest(self, name: str, suggest: Callable[[optuna.Trial], Any]) -> Any:
        self.read.add(name)
        if self._trial is None and name in self._params:
            return self._distributions[name].to_external_repr(self._params[name])
        if self._trial is not None and (not self.together or name in self._trial.distributions):
            trial = self._trial
            return self._ask(lambda: suggest(trial))
        answer = self._on_all(lambda trial: self._answer(name, suggest(trial)))
        if answer["name"] != name:
            raise RuntimeError(
                f"rank {self._ranks.rank} asked for {name!r} where rank zero asked for {answer['name']!r}: every rank "
                "must make the same suggestions in the same order"
            )
        distribution = json_to_distribution(answer["distribution"])
        self._params[name], self._distributions[name] = answer["value"], distribution
        return distribution.to_external_repr(answer["value"])

    def _answer(self, name: str, value: Any) -> dict[str, Any]:
        assert self._trial is not None
        text = distribution_to_json(self._trial.distributions[name])
        return {"name": name, "value": self._internal(name, value), "distribution": text}

    def _internal(self, name: str, value: Any) -> float:
        """As the storage has it: a number, also for a choice."""
        assert self._trial is not None
        return float(self._trial.distributions[name].to_internal_repr(value))

    def _on_all(self, answer: Callable[[optuna.Trial], Any]) -> Any:
        trial = self._trial
        if trial is None:
            return self._ranks.share(lambda: None)
        if not self.together:
            return self._ask(lambda: answer(trial))
        return self._ranks.share(lambda: self._ask(lambda: answer(trial)))


class Hyperparameters(dict[str, Any]):
    """The trial of the other backends: a dictionary that knows what was read of it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()
        self.read_all = False

    @property
    def params(self) -> dict[str, Any]:
        """The values, for ``transformers.integrations.hp_params``; nothing was read of them."""
        return dict(super().items())

    @property
    def assignments(self) -> "Hyperparameters":
        """The values, by the name that SigOpt's trials have for them in Transformers."""
        return self

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dictionary."""
        self.read.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Iterator[str]:
        self.read_all = True
        return super().__iter__()

    def keys(self) -> Any:
        """As of a dictionary."""
        self.read_all = True
        return super().keys()

    def values(self) -> Any:
        """As of a dictionary."""
        self.read_all = True
        return super().values()

    def items(self) -> Any:
        """As of a dictionary."""
        self.read_all = True
        return super().items()


# A dictionary is a trial to Transformers only where Ray or W&B is installed, which another backend does not need.
BaseTrial.register(Hyperparameters)

Given = SharedTrial | Hyperparameters
"""What the user's functions get."""
