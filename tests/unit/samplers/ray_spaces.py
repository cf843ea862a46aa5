"""Spaces as users of Ray Tune write them in Python."""

from typing import Any


def hp_space(trial: None) -> dict[str, Any]:
    """The one of the Transformers documentation."""
    from ray import tune

    return {
        "learning_rate": tune.loguniform(1e-6, 1e-4),
        "per_device_train_batch_size": tune.choice([16, 32, 64, 128]),
    }
