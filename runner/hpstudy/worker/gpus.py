"""Whether the ranks of a pod can have a GPU each."""

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.training.devices import count_gpus, has_opened_cuda

_ON_CPUS = "to train on CPUs, set the environment variable CUDA_VISIBLE_DEVICES to an empty string"


def check_gpus(spec: StudySpec) -> None:
    """Check the parent of the ranks, once it has imported and prepared all that they share. Of a machine without GPUs,
    and of programs of their own (``trial.command``), nothing is asked.

    Raises:
        InvalidStudyError: there are more ranks than GPUs, or no rank could open one.
    """
    if spec.trial.command is not None or not (gpus := count_gpus()):
        return
    _check_count(spec, gpus)
    if has_opened_cuda():
        raise InvalidStudyError(
            reasons.CUDA_OPENED,
            f"{_imported(spec)} opened CUDA. The ranks of all trials are forked from the process that imports it, and"
            " no fork of a process that has opened CUDA can use a GPU. Keep what calls torch.cuda or puts a model or a"
            " tensor on a GPU out of what runs on import, and use trial.device inside the function;"
            f" {_ON_CPUS}",
        )


def _check_count(spec: StudySpec, gpus: int) -> None:
    ranks = spec.workers.processes_per_node
    form = spec.trial.transformers
    if ranks == "auto" or ranks <= gpus or (form is not None and form.arguments.get("use_cpu") is True):
        return
    found = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    raise InvalidStudyError(
        reasons.INVALID_SPEC,
        f"workers.processesPerNode: {ranks} ranks need a GPU each, and torch sees {found} here; lower it to {gpus}, or"
        f" give the workers more GPUs ({_ON_CPUS})",
    )


def _imported(spec: StudySpec) -> str:
    """What of the user's was imported, by the fields that name it."""
    form, space = spec.trial.transformers, spec.search_space
    entries = {
        "trial.function": spec.trial.function,
        "trial.transformers.computeObjective": form.compute_objective if form is not None else None,
        "searchSpace.python": space.python if space is not None else None,
    }
    named = [f"{field} {entry}" for field, entry in entries.items() if entry is not None]
    return f"what is imported for {' and '.join(named)}" if named else "what the trials share, imported and prepared,"
