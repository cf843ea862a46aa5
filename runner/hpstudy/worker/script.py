"""What each rank of a script runs (``trial.script``), in a process of its own forked from the warm parent."""

import os
import runpy
import sys
from datetime import timedelta

import torch
from torch._C._distributed_c10d import TCPStore

from hpstudy.search.group import GroupEnvironment
from hpstudy.training.script import ScriptForm
from hpstudy.trials.messages import Run
from hpstudy.worker.share import take_share

_FOR_EVER = timedelta(days=7)
"""For the other ranks at the script's end: that of a rank that failed ends all of them, and with it the wait."""


def run_script(form: ScriptForm, run: Run, environment: GroupEnvironment) -> None:
    """Run the script as ``torchrun SCRIPT ARGS`` would in the study's folder, until it ends on every rank.

    Raises:
        SystemExit: it ended with an exit code; what else it raises comes out, too.
    """
    take_share(run, processes=int(os.environ["LOCAL_WORLD_SIZE"]))
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    world = int(os.environ["WORLD_SIZE"])
    if world > 1 and not torch.accelerator.is_available():
        # Without it accelerate takes ranks on CPUs for strangers, and each would train by itself.
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    os.environ.update(environment.variables())
    os.chdir(environment.folder)
    sys.argv = [str(form.path), *form.args]
    sys.path.insert(0, str(form.path.parent))
    try:
        runpy.run_path(str(form.path), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    if world > 1:  # rank zero may be at work alone, and a rank that has gone is one that failed
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_FOR_EVER)
        if store.add("hpstudy/script/ended", 1) == world:
            store.set("hpstudy/script/all", "")
        store.wait(["hpstudy/script/all"])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
