"""python examples/search_ray.py, or torchrun --nproc-per-node 2 examples/search_ray.py

The script of Transformers' page on hyperparameter search, with one line changed. Ray Tune's own search runs without a
Ray cluster.
"""

from typing import Any

from ray import tune
from reviews_trainer import make_trainer

from hpstudy import hyperparameter_search


def ray_hp_space(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "per_device_train_batch_size": tune.choice([16, 32, 64, 128]),
    }


def compute_objective(metrics: dict[str, float]) -> float:
    return metrics["eval_accuracy"]


trainer = make_trainer("hpstudy-runs/search-ray")

best_run = hyperparameter_search(  # in place of: trainer.hyperparameter_search(
    trainer,
    direction="maximize",
    backend="ray",
    hp_space=ray_hp_space,
    n_trials=4,
    compute_objective=compute_objective,
)
print(best_run)
