"""Where W&B's own callback logs the trials of a sweep."""

import optuna

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes


def variables(study: optuna.Study, spec: StudySpec) -> dict[str, str]:
    """WANDB_PROJECT and WANDB_ENTITY, as far as the sweep says them: ``wandb.sweep``, which Transformers' own search
    calls, leaves them in the environment, and the Trainer's WandbCallback reads them. Empty for other backends."""
    if spec.backend != "wandb":
        return {}
    place = study.user_attrs.get(attributes.WANDB_SWEEP)  # the server's words, where there is one
    if place is None:
        place = (spec.search_space and spec.search_space.wandb) or {}
    return {f"WANDB_{name.upper()}": str(place[name]) for name in ("project", "entity") if place.get(name)}
