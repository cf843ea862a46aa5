"""Trials in one process: none finds what another left."""

import gc
import os
import random

import accelerate
import numpy
import pytest
import torch
from transformers.utils import enable_tf32

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
        torch.set_default_device("meta")
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        torch.set_flush_denormal(True)
        torch.set_float32_matmul_precision("medium")
        enable_tf32(True)
        torch.set_grad_enabled(False)

        reset(baseline)

        assert (random.random(), numpy.random.rand(), torch.rand(1).item()) == drawn
        assert _Heavy.alive == 0
        assert os.environ["KEPT"] == "as it was"
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
        assert accelerate.Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"
        assert not torch.are_deterministic_algorithms_enabled()
        assert Baseline.take().flags == baseline.flags
        assert Baseline.take().precision == baseline.precision
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_default_dtype() == torch.float32
        assert torch.rand(1).device == torch.device("cpu")
        assert not torch.overrides._get_current_function_mode_stack()  # no default device at all is the fastest
        assert not torch.is_anomaly_enabled()
        assert torch.is_anomaly_check_nan_enabled()
        assert torch.tensor([5e-324], dtype=torch.float64).mul(1).item() == 5e-324
        assert torch.is_grad_enabled()
    finally:
        reset(baseline)
        accelerate.state.PartialState._reset_state()
        gc.unfreeze()
