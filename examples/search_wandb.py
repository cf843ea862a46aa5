"""python examples/search_wandb.py, or torchrun --nproc-per-node 2 examples/search_wandb.py

The script of Transformers' page on hyperparameter search, with one line changed. Where WANDB_API_KEY is set the sweep
is one of that server; else W&B's own engine runs in the process.
"""

from typing import Any

from reviews_trainer import make_trainer

from hpstudy import hyperparameter_search


def wandb_hp_space(trial: Any) -> dict[str, Any]:
    return {
        "method": "random",
        "metric": {"name": "objective", "goal": "maximize"},
        "parameters": {
            "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
            "per_device_train_batch_size": {"values": [16, 32, 64, 128]},
        },
    }


def compute_objective(metrics: dict[str, float]) -> float:
    return metrics["eval_accuracy"]


trainer = make_trainer("hpstudy-runs/search-wandb")

best_run = hyperparameter_search(  # in place of: trainer.hyperparameter_search(
    trainer,
    direction="maximize",
    backend="wandb",
    hp_space=wandb_hp_space,
    n_trials=4,
    compute_objective=compute_objective,
)
print(best_run)
