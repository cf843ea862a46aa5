"""Objective functions of trials that look for their GPUs, and a module that does what a user's may do on import."""

import os

import torch

from hpstudy import Trial

match os.environ.get("TEST_ON_IMPORT"):
    case "asks":  # as some packages do
        assert torch.cuda.is_available()
    case "opens":  # what opens CUDA, and goes no further without a GPU
        torch._C._cuda_getDeviceCount()
    case "chooses":
        os.environ["CUDA_VISIBLE_DEVICES"] = "1"


def looks(trial: Trial) -> dict[str, float]:
    """What the rank sees, and whether it could open CUDA, before it has asked anything."""
    spoilt = torch.cuda._is_in_bad_fork()
    seen = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    first = int(visible[0]) if visible[:1].isdigit() else -1
    return {"loss": 0, "spoilt": spoilt, "seen": seen, "first": first, "ranks": trial.world_size}
