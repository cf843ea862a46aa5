"""The space of the contract in each backend's own form, and functions of a user's that return it."""

from typing import Any

import optuna

OPTUNA = {
    "rate": {"suggest_float": {"low": 1e-6, "high": 1e-4, "log": True}},
    "epochs": {"suggest_int": {"low": 1, "high": 5}},
    "width": {"suggest_int": {"low": 8, "high": 64, "step": 8}},
    "dropout": {"suggest_float": {"low": 0, "high": 0.5, "step": 0.1}},
    "kind": {"suggest_categorical": {"choices": ["a", "b", None]}},
    "flag": {"suggest_categorical": [[True, False]]},
}
RAY = {
    "rate": {"loguniform": [1e-6, 1e-4]},
    "epochs": {"randint": [1, 6]},
    "width": {"qrandint": [8, 64, 8]},
    "dropout": {"quniform": {"lower": 0, "upper": 0.5, "q": 0.1}},
    "kind": {"choice": [["a", "b", None]]},
    "flag": {"choice": [[True, False]]},
}
WANDB = {
    "method": "bayes",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {
        "rate": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-4},
        "epochs": {"min": 1, "max": 5},
        "width": {"distribution": "q_uniform", "min": 8, "max": 64, "q": 8},
        "dropout": {"distribution": "q_uniform", "min": 0, "max": 0.5, "q": 0.1},
        "kind": {"values": ["a", "b", None]},
        "flag": {"values": [True, False]},
    },
}
SIGOPT = [
    {"name": "rate", "type": "double", "bounds": {"min": 1e-6, "max": 1e-4}, "transformation": "log"},
    {"name": "epochs", "type": "int", "bounds": {"min": 1, "max": 5}},
    {"name": "width", "type": "int", "grid": [8, 16, 24, 32, 40, 48, 56, 64]},
    {"name": "dropout", "type": "double", "grid": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]},
    {"name": "kind", "type": "categorical", "categorical_values": ["a", "b"]},
    {"name": "momentum", "type": "double", "bounds": {"min": 0, "max": 0.99}, "conditions": {"kind": ["a"]}},
]


def define_by_run(trial: optuna.Trial) -> None:
    trial.suggest_float("rate", 1e-6, 1e-4, log=True)
    trial.suggest_int("epochs", 1, 5)
    trial.suggest_int("width", 8, 64, step=8)
    trial.suggest_float("dropout", 0, 0.5, step=0.1)
    trial.suggest_categorical("flag", [True, False])
    if trial.suggest_categorical("kind", ["a", "b", None]) == "a":
        trial.suggest_float("momentum", 0, 0.99)


def ray(trial: Any) -> dict[str, Any]:
    """As in the Transformers documentation: what Ray's functions return."""
    from ray import tune

    return {
        "rate": tune.loguniform(1e-6, 1e-4),
        "epochs": tune.randint(1, 6),
        "width": tune.qrandint(8, 64, 8),
        "dropout": tune.quniform(0, 0.5, 0.1),
        "kind": tune.choice(["a", "b", None]),
        "flag": tune.choice([True, False]),
    }


def wandb(trial: Any) -> dict[str, Any]:
    return WANDB


def sigopt(trial: Any) -> list[dict[str, Any]]:
    return SIGOPT
