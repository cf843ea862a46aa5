"""For all searches in one process."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two test processes share the machine."""
    torch.set_num_threads(1)
