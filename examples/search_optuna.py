"""python examples/search_optuna.py, or on two processes that train every trial together:
torchrun --nproc-per-node 2 examples/search_optuna.py

The script of Transformers' page on hyperparameter search, with one line changed. Stopped and started again, it
continues until there are six trials.
"""

from typing import Any

from reviews_trainer import make_trainer

from hpstudy import hyperparameter_search


def optuna_hp_space(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [16, 32, 64, 128]),
    }


def compute_objective(metrics: dict[str, float]) -> float:
    return metrics["eval_accuracy"]


trainer = make_trainer("hpstudy-runs/search-optuna")

best_run = hyperparameter_search(  # in place of: trainer.hyperparameter_search(
    trainer,
    direction="maximize",
    backend="optuna",
    hp_space=optuna_hp_space,
    n_trials=6,
    compute_objective=compute_objective,
    storage="sqlite:///hpstudy-runs/search-optuna/search.db",
)
print(best_run)
