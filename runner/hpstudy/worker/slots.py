"""How many trials a pod runs side by side (``workers.trialsPerPod``)."""

import math
from typing import Literal

from hpstudy.trials.messages import DeviceMemory

_DEVICE_SHARE = 0.9
"""Of a GPU's memory that auto fills: allocators fragment, and the next trial may be larger."""
_BUDGET_SHARE = 0.25


class Slots:
    """The places for trials in a pod; who takes one gets the lowest that is free.

    Auto is one trial for each rank's CPU. With GPUs it begins with one for each set of GPUs that a trial's ranks take;
    when a trial has told how much of a GPU it took, as many as fit, at most one for each rank's CPU. After a trial that
    ran out of memory it is half as many, and never more again. It is never more than a quarter of the budget: a
    sampler learns nothing from trials that run at the same time.

    Args:
        trials_per_pod: the field.
        processes: ranks of a trial in the pod.
        cpus, gpus: what the pod has.
        budget: trials of the study.
    """

    def __init__(
        self, trials_per_pod: int | Literal["auto"], processes: int, cpus: int, gpus: int, budget: int
    ) -> None:
        self._auto = trials_per_pod == "auto"
        self._processes = processes
        self._gpus = gpus
        self._limit = max(1, min(cpus // processes, math.ceil(_BUDGET_SHARE * budget)))
        self._taken: set[int] = set()
        self._peak = self._beside = 0
        if trials_per_pod != "auto":
            self.count = trials_per_pod
        elif gpus:
            self.count = min(max(1, gpus // processes), self._limit)
        else:
            self.count = self._limit

    @property
    def has_room(self) -> bool:
        """Whether another trial fits."""
        return len(self._taken) < self.count

    def take(self) -> int:
        """Take a place."""
        slot = min(set(range(self.count)) - self._taken)
        self._taken.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give it back."""
        self._taken.remove(slot)

    def note_memory(self, memory: DeviceMemory) -> None:
        """A trial ended, and took so much of its GPU."""
        if not (self._auto and self._gpus):
            return
        # What lies beside the allocator's is a context for each process: what the first trial, alone, saw.
        self._beside = self._beside or memory.beside
        self._peak = max(self._peak, memory.peak)
        fitting = int(_DEVICE_SHARE * memory.total // max(1, self._peak + self._beside))
        self.count = max(1, min(fitting * self._gpus // self._processes, self._limit))

    def note_out_of_memory(self) -> None:
        """A trial ran out of memory, perhaps for want of what the others took."""
        if self._auto:
            self.count = self._limit = max(1, self.count // 2)
