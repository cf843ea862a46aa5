"""python examples/search_sigopt.py, or torchrun --nproc-per-node 2 examples/search_sigopt.py

The script of Transformers' page on hyperparameter search from the time when that had SigOpt, with one line changed.
SigOpt's own optimiser runs in the process, as its service is gone.
"""

from typing import Any

from reviews_trainer import make_trainer

from hpstudy import hyperparameter_search


def sigopt_hp_space(trial: Any) -> list[dict[str, Any]]:
    return [
        {"bounds": {"min": 1e-4, "max": 1e-2}, "name": "learning_rate", "type": "double", "transformation": "log"},
        {
            "categorical_values": ["16", "32", "64", "128"],
            "name": "per_device_train_batch_size",
            "type": "categorical",
        },
    ]


def compute_objective(metrics: dict[str, float]) -> float:
    return metrics["eval_accuracy"]


trainer = make_trainer("hpstudy-runs/search-sigopt")

best_run = hyperparameter_search(  # in place of: trainer.hyperparameter_search(
    trainer,
    direction="maximize",
    backend="sigopt",
    hp_space=sigopt_hp_space,
    n_trials=4,
    compute_objective=compute_objective,
)
print(best_run)
