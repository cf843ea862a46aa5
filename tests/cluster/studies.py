"""The studies that the cluster tests apply."""

from typing import Any

CODE = """
import os, time
import torch, torch.distributed as dist
import hpstudy

def bowl(trial):
    for step in range(3):
        trial.report((trial.params["x"] - 1) ** 2 + step, step)
        if trial.should_prune():
            raise hpstudy.TrialPruned
    return (trial.params["x"] - 1) ** 2

def ranks(trial):
    dist.init_process_group("gloo")
    total = torch.tensor([float(trial.rank)])
    dist.all_reduce(total)
    return {"loss": abs(trial.params["x"]), "ranks": trial.world_size, "sum": total.item()}

def trade(trial):
    x = trial.params["x"]
    return x ** 2, (x - 1) ** 2

def broken(trial):
    raise RuntimeError("the disk of the trial is full")

def unmeasured(trial):
    return {"accuracy": 0.5}

def hungry(trial):
    # Takes all the memory that there is, the first time.
    held = []
    while trial.number == 0:
        held.append(b"x" * 2**26)
    return trial.params["x"] ** 2

def insatiable(trial):
    held = []
    while True:
        held.append(b"x" * 2**26)

def slow_at_first(trial):
    time.sleep(600 if trial.number == 0 else 0)
    return trial.params["x"] ** 2

def counts_on(trial):
    # Saves only when it is told to stop; the loss is where it went on from.
    state = trial.checkpoint_dir / "step"
    first = int(state.read_text()) if state.exists() else 0
    step = first
    while not first:
        step += 1
        time.sleep(0.1)
        if trial.should_stop():
            state.write_text(str(step))
            raise hpstudy.TrialStopped
        if step == 20:
            open("/tmp/began", "w").close()
    return first

def steady(trial):
    for step in range(30):
        time.sleep(1)
        trial.report(trial.params["x"] ** 2, step)
    return trial.params["x"] ** 2

def counted(trial):
    # Six steps with a checkpoint after each; the first trial does not come beyond the third.
    state = trial.checkpoint_dir / "state"
    begin = int(state.read_text()) if state.exists() else 0
    for step in range(begin + 1, 7):
        time.sleep(600 if trial.number == 0 and step == 4 else 0)
        state.write_text(str(step))
        trial.report({"loss": trial.params["x"] ** 2}, step)
    return {"loss": trial.params["x"] ** 2, "begun_after": begin}

def versioned(trial):
    # Takes a while, and says with which image and environment it ran.
    time.sleep(20)
    return {"loss": trial.params["x"] ** 2, "version": int(os.environ["VERSION"])}

def space(trial):
    kind = trial.suggest_categorical("kind", ["narrow", "wide"])
    return {"kind": kind, "x": trial.suggest_float("x", -1, 1) if kind == "narrow" else trial.suggest_float("y", -5, 5)}
"""
"""A module of the user's; it comes by ConfigMap, so that no image has to be built."""

_X = {"parameters": {"x": {"type": "float", "low": -2, "high": 2}}}
_SMALL = {
    "model_type": "bert",
    "vocab_size": 500,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def code() -> dict[str, Any]:
    """The ConfigMap with the module."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"user_code.py": CODE}}


def study(name: str, **fields: Any) -> dict[str, Any]:
    """A manifest; ``function`` names one of the module's."""
    function = fields.pop("function", None)
    spec: dict[str, Any] = {
        "objectives": [{"metric": "loss", "direction": "minimize"}],
        "searchSpace": _X,
        "budget": {"maxTrials": 4},
    }
    if function is not None:
        spec["trial"] = {"function": f"user_code:{function}"}
        container = {"name": "worker", "workingDir": "/code", "volumeMounts": [{"name": "code", "mountPath": "/code"}]}
        pod = {"containers": [container], "volumes": [{"name": "code", "configMap": {"name": "code"}}]}
        spec["workers"] = {"template": {"spec": pod}}
    for field, value in fields.items():
        spec[field] = {**spec[field], **value} if field == "workers" and field in spec else value
    return {"apiVersion": "hpstudy.io/v1alpha1", "kind": "HPStudy", "metadata": {"name": name}, "spec": spec}


def reviews(name: str, **fields: Any) -> dict[str, Any]:
    """Sentiment of reviews with a model so small that two nodes of two processes train it in seconds."""
    transformers = {
        "task": "text-classification",
        "model": {"config": _SMALL},
        "dataset": {"csv": "data/reviews.csv", "maxLength": 16, "maxRows": 1000},
        "arguments": {"num_train_epochs": 1, "per_device_train_batch_size": 16},
    }
    parameters = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}
    objectives = [{"metric": "eval_f1", "direction": "maximize"}]
    trial = {"transformers": transformers}
    return study(
        name, **{"objectives": objectives, "searchSpace": {"parameters": parameters}, "trial": trial, **fields}
    )
