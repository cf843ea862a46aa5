"""The Trainer's FSDP and DeepSpeed on CPU ranks.

torch's FSDP and DeepSpeed work on CPUs with gloo. accelerate takes no notice of them there, because it knows a CPU for
no accelerator: here it is told otherwise. What trains, divides, saves and loads is what does so on GPUs.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.processes import REPOSITORY

BACKEND = "gloo"
DEEPSPEED = REPOSITORY / ".venv" / "deepspeed"
"""Where hack/venv.sh installs it."""

_ZERO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own is compiled
    "zero_force_ds_cpu_optimizer": False,
}
_FSDP = {"transformer_layer_cls_to_wrap": ["BertLayer"]}
SHARDINGS: dict[str, dict[str, Any]] = {
    "FSDP": {"fsdp": True, "fsdp_config": _FSDP},
    "FSDP in parts": {"fsdp": True, "fsdp_config": _FSDP | {"state_dict_type": "SHARDED_STATE_DICT"}},
    "ZeRO-2": {"deepspeed": _ZERO | {"zero_optimization": {"stage": 2}}},
    "ZeRO-3": {"deepspeed": _ZERO | {"zero_optimization": {"stage": 3}}},
}
"""TrainingArguments, of a BERT, by name."""


@contextmanager
def deepspeed_found() -> Iterator[None]:
    """Python processes that multiprocessing spawns meanwhile find DeepSpeed. (accelerate and Transformers look for it
    when they are imported.)"""
    sys.path.append(str(DEEPSPEED))
    try:
        yield
    finally:
        sys.path.remove(str(DEEPSPEED))


def shard_on_cpus() -> None:
    """Call it before the Trainer is used: this process, and those forked from it, shard on CPUs. Training that does not
    shard no longer works in them."""
    import deepspeed
    from accelerate import state
    from accelerate.utils import DistributedType

    from hpstudy.training import trainer

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    os.environ["ACCELERATE_USE_CPU"] = "false"

    def backend(*_: Any) -> tuple[str, DistributedType]:
        # Of the accelerators that shard, one that nothing is asked of beyond a process group.
        return BACKEND, DistributedType.MULTI_XPU

    state.PartialState._prepare_backend = backend
    trainer.count_gpus = lambda: 1
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled
