"""The GPU check says in one line whether it checked anything."""

import os

import pytest

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking must not open the device: ranks are forked

import torch

DEVICES = torch.cuda.device_count() if torch.cuda.is_available() else 0
_BUILD = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
WITHOUT = f"no GPU here (torch {torch.__version__}, built {_BUILD})"


@pytest.fixture(autouse=True)
def gpu() -> None:
    """Every test here needs one."""
    if not DEVICES:
        pytest.skip(WITHOUT)


@pytest.fixture
def devices() -> int:
    """How many GPUs there are; two or more."""
    if DEVICES < 2:
        pytest.skip("one GPU only: ranks on several were not checked")
    return DEVICES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In words that cannot be taken for a pass."""
    if not DEVICES:
        terminalreporter.write_line(f"GPU CHECK SKIPPED, nothing was checked: {WITHOUT}", yellow=True)
    else:
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(DEVICES))
        terminalreporter.write_line(f"GPU check on {names}")
