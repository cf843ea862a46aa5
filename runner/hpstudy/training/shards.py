"""Whether a checkpoint is whole on the node that publishes it."""

import os
from pathlib import Path

_METADATA = ".metadata"
"""Of torch.distributed.checkpoint: names the files of all ranks."""
_OF_ZERO = "*zero_pp_rank_*_optim_states.pt"
"""DeepSpeed's, one from each rank."""


def lacking(folder: Path) -> list[str]:
    """Parts of a sharded checkpoint that other nodes' ranks have written, to disks of their own: what FSDP saves
    sharded, and DeepSpeed's. Those of DeepSpeed are only counted."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == (ranks := int(os.environ.get("WORLD_SIZE", "1"))):
        return []
    found = []
    for metadata in folder.rglob(_METADATA):
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        place = metadata.parent
        parts = FileSystemReader(place).read_metadata().storage_data or {}
        paths = {place / part.relative_path for part in parts.values()}
        found += sorted(str(path.relative_to(folder)) for path in paths if not path.exists())
    for step in {path.parent for path in folder.rglob(_OF_ZERO)}:
        if len(list(step.glob(_OF_ZERO))) < ranks:
            found.append(str(step.relative_to(folder) / _OF_ZERO))
    return found
