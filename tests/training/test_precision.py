"""The precision of float32 is put back so that nothing can tell, each time in a process that has touched none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import backends
from transformers.utils import enable_tf32

from hpstudy.training.precision import Precision
from tests.support.forkserver import PROCESSES

SETTINGS: list[Any] = [
    backends,
    backends.cudnn,
    backends.cuda.matmul,
    backends.cudnn.conv,
    backends.cudnn.rnn,
    backends.mkldnn,
    backends.mkldnn.matmul,
    backends.mkldnn.conv,
    backends.mkldnn.rnn,
]
OLDER: list[Callable[[], Any]] = [
    torch.get_float32_matmul_precision,
    lambda: backends.cuda.matmul.allow_tf32,
    lambda: backends.cudnn.allow_tf32,
]


def _write(setting: Any, value: str) -> None:
    setting.fp32_precision = value


def _allow(setting: Any, value: bool) -> None:
    setting.allow_tf32 = value


WRITES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "tf32 of the arguments": lambda: enable_tf32(True),
    "no tf32 of the arguments": lambda: enable_tf32(False),
    "bf16 for all": lambda: _write(backends, "bf16"),
    "a backend": lambda: _write(backends.cudnn, "tf32"),
    "the other backend": lambda: backends.mkldnn.set_flags(_fp32_precision="bf16"),
    "an operation": lambda: _write(backends.cuda.matmul, "tf32"),
    "an operation of the other": lambda: _write(backends.mkldnn.conv, "bf16"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "as accelerate compiles": lambda: _allow(backends.cuda.matmul, True),
    "all and an operation": lambda: (enable_tf32(True), _write(backends.cuda.matmul, "ieee")),
}
OF_CUDNN: dict[str, Callable[[], Any]] = {
    "a convolution": lambda: _write(backends.cudnn.conv, "ieee"),
    "a convolution, and the older name": lambda: (
        _allow(backends.cudnn, False),
        _write(backends.cudnn.rnn, "tf32"),
    ),
    "the older name": lambda: _allow(backends.cudnn, False),
    "the older name twice": lambda: (_allow(backends.cudnn, False), _allow(backends.cudnn, True)),
}


def _read() -> list[str]:
    """Everything by its public name, with errors for what they are."""
    found = [setting.fp32_precision for setting in SETTINGS]
    for older in OLDER:
        try:
            found.append(str(older()))
        except RuntimeError:
            found.append("mixed")
    return found


def _reads() -> list[list[str]]:
    """As it is, and as it would be after each choice for all: what follows that, and what does not."""
    before, reads = backends.fp32_precision, [_read()]
    for value in ("none", "ieee", "tf32", "bf16"):
        _write(backends, value)
        reads.append(_read())
    _write(backends, before)
    return reads


def _check(before: str) -> None:
    (WRITES | OF_CUDNN)[before]()
    reads = _reads()
    precision = Precision.take()
    assert _reads() == reads
    for name, write in (WRITES | OF_CUDNN).items():
        if name in OF_CUDNN and before not in OF_CUDNN:
            # Till then they are TF32 until something is chosen for all, which nothing makes them again.
            reads = reads[:2]
        write()
        precision.restore()
        assert _reads()[: len(reads)] == reads, name
    enable_tf32(True)
    assert backends.fp32_precision == "tf32", "transformers remembers that it wrote it before"


@pytest.mark.parametrize("before", ["nothing", "tf32 of the arguments", "medium", "a backend", "the older name"])
def test_what_trials_write_is_undone(before: str) -> None:
    process = PROCESSES.Process(target=_check, args=(before,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
