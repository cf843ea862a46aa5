"""Where a W&B sweep is, and W&B's own callback logs its trials."""

from typing import Any

import optuna

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes

LABELS = ("project", "entity", "name")
"""Of a sweep: they are no part of what is searched."""


def with_labels(spec: StudySpec, study: optuna.Study) -> StudySpec:
    """The spec of a search that goes on by its ``sweep_id`` alone, with the labels that the search had from the
    beginning. One that is named must be what it was."""
    if spec.backend != "wandb" or spec.search_space is None:
        return spec
    recorded: dict[str, Any] = study.user_attrs.get(attributes.SPEC) or {}
    begun = (recorded.get("searchSpace") or {}).get("wandb") or {}
    sweep = {name: begun[name] for name in LABELS if name in begun} | (spec.search_space.wandb or {})
    return spec.model_copy(update={"search_space": spec.search_space.model_copy(update={"wandb": sweep})})


def variables(study: optuna.Study, spec: StudySpec) -> dict[str, str]:
    """WANDB_PROJECT and WANDB_ENTITY, as far as the sweep says them: ``wandb.sweep``, which Transformers' own search
    calls, leaves them in the environment, and the Trainer's WandbCallback reads them. Empty for other backends."""
    if spec.backend != "wandb":
        return {}
    place = study.user_attrs.get(attributes.WANDB_SWEEP)  # the server's words, where there is one
    if place is None:
        place = (spec.search_space and spec.search_space.wandb) or {}
    return {f"WANDB_{name.upper()}": str(place[name]) for name in ("project", "entity") if place.get(name)}
