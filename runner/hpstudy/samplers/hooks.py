"""What the trial loop asks of a sampler beyond Optuna's interface, with answers for those that know nothing of it."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna


class Hooks:
    """A base for samplers that come to an end, or that speak to a server."""

    def is_ready(self, study: optuna.Study) -> bool:
        """Whether it can propose now; a group whose server has no trial yet waits."""
        return True

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether an exhaustive sampler has no point left that was neither tried nor is running.

        The study then waits for running trials and is over, before a trial is made that would have no point.
        """
        return False

    @property
    def in_turn(self) -> bool:
        """Whether a group must not begin a proposal before another's is recorded, or both may be the same point."""
        return False

    @property
    def exhausted_because(self) -> str:
        """Why, for people."""
        return "every point of the space was tried"

    def observe(self, study: optuna.Study, number: int, step: int, metrics: Mapping[str, Any]) -> None:
        """Show what a running trial reported elsewhere too."""

    def close(self) -> None:
        """Let go of a server."""


class WholeCurvePruner:
    """A base for pruners that judge by whole curves each time they are asked. Which trials they compare is their own
    affair, and they are not asked about what a trial had reported before it was continued."""


class ContinuingPruner(WholeCurvePruner):
    """A base for pruners whose trials go on from the checkpoints of others. A trial that they end has an attribute
    (``attributes.NEXT``) with the trial that is to follow it."""

    has_checkpoint: Callable[[int], bool] = staticmethod(lambda number: False)
    """Whether a trial has left one, by its number; the trial loop sets it."""


_NONE = Hooks()


def hooks(sampler: optuna.samplers.BaseSampler) -> Hooks:
    """The sampler's own, or those that do nothing."""
    return sampler if isinstance(sampler, Hooks) else _NONE
