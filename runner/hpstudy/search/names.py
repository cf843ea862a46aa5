"""Hyperparameters that the arguments do not take: model_init's own, or misspelt."""

import dataclasses
import difflib
import logging
from collections.abc import Iterable

from transformers import TrainingArguments

from hpstudy.search.proxies import Given
from hpstudy.training.arguments import check_known

_log = logging.getLogger(__name__)

_MISSPELT = 0.91
"""Nearness to a field's name (difflib's ratio) from which on that field is meant: weigth_decay is that near,
head_learning_rate and scheduler_type are not."""


class Names:
    """What model_init reads of the trials of a search: one may leave unread what another needs."""

    def __init__(self) -> None:
        self._read: set[str] = set()
        self._told: set[str] = set()

    def check(self, args: TrainingArguments, names: Iterable[str], given: Given | None) -> None:
        """Refuse what nothing can take; warn once of what may be read in another trial. (Transformers' own search warns
        of everything.)

        Args:
            names: no fields of the arguments.
            given: what model_init read; None where it does not get the trial.

        Raises:
            InvalidStudyError: there is such a name, with the nearest field.
        """
        known = [field.name for field in dataclasses.fields(args)]
        what = f"no field of {type(args).__name__}, and model_init did not read it"
        if given is None:
            check_known(names, known, {}, "hyperparameters", what)
            return
        names = list(names)
        self._read.update(names if given.read_all else given.read)
        unread = [name for name in names if name not in self._read]
        near = [name for name in unread if difflib.get_close_matches(name, known, n=1, cutoff=_MISSPELT)]
        check_known(near, known, {}, "hyperparameters", what)
        for name in unread:
            if name not in self._told and args.process_index == 0:
                _log.warning("hyperparameters.%s: %s in any trial so far: it has no effect", name, what)
            self._told.add(name)
