"""Types that several parts of a study share."""

from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from hpstudy.api.model import ApiModel

Number = StrictFloat | StrictInt
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Name = Annotated[str, Field(min_length=1, max_length=253)]
Metric = Annotated[str, Field(min_length=1, max_length=200)]
Entry = Annotated[str, Field(min_length=3, max_length=500, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""``module:function``, as in Python's entry points."""


class Algorithm(ApiModel):
    """A sampler or pruner by the backend's own name."""

    name: Name
    """Class name in the backend (TPESampler, HyperbandPruner)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor, by their own names."""
