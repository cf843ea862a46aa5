"""What a trial is: the forms of ``spec.trial``."""

from typing import Annotated

from pydantic import Field

from hpstudy.api.command import Command
from hpstudy.api.fields import Entry
from hpstudy.api.model import ApiModel, exactly_one
from hpstudy.api.transformers import TransformersTrial


class Script(ApiModel):
    """A training script of the user's, run on every rank as under torchrun. Its call of
    hpstudy.hyperparameter_search is the loop over the trials, for which the study gives storage, budget and, where the
    script has no hp_space, the search space."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """The script, relative to the manifest's folder or, in a cluster, to the container's."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=200)] = Field(default_factory=list)
    """Its command line."""


class Trial(ApiModel):
    """What a trial is, in exactly one form."""

    transformers: TransformersTrial | None = None
    """A Hugging Face Trainer run, no code needed."""
    function: Entry | None = None
    """module:function in the worker's image; called on every rank as function(trial), returns the value of the
    objective, one for each objective, or metrics by name."""
    script: Script | None = None
    """A Trainer script that calls hpstudy.hyperparameter_search."""
    command: Command | None = None
    """Any program in any language, once per trial on every node."""

    rules = (exactly_one("trial", "transformers", "function", "script", "command"),)
