"""Trials in one process: none finds what another left."""

import gc
import os
import random

import accelerate
import numpy
import pytest
import torch

from hpstudy.training.isolation import Baseline, reset

pytestmark = pytest.mark.filterwarnings("default")


class _Heavy:
    """Held by a cycle, as models are by their hooks."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


def test_a_trial_finds_nothing_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "as it was")
    baseline = Baseline.take()
    reset(baseline)  # another test of this process may have left a Trainer's state
    try:
        drawn = random.random(), numpy.random.rand(), torch.rand(1).item()
        _Heavy()
        os.environ["KEPT"] = "changed"
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
        accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)

        reset(baseline)

        assert (random.random(), numpy.random.rand(), torch.rand(1).item()) == drawn
        assert _Heavy.alive == 0
        assert os.environ["KEPT"] == "as it was"
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
        assert accelerate.Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"
        assert not torch.are_deterministic_algorithms_enabled()
        assert Baseline.take().flags == baseline.flags
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()
    finally:
        reset(baseline)
        accelerate.state.PartialState._reset_state()
        gc.unfreeze()
