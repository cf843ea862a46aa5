"""Types that several parts of a study share."""

import math
import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from hpstudy.api.model import ApiModel

Number = StrictFloat | StrictInt
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
Name = Annotated[str, Field(min_length=1, max_length=253)]
Metric = Annotated[str, Field(min_length=1, max_length=200)]
ENTRY_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
Entry = Annotated[str, Field(min_length=3, max_length=500, pattern=ENTRY_PATTERN)]
"""``module:function``, as in Python's entry points."""


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(str):
    """A length of time above zero, as Kubernetes and Go write it: 90s, 1h30m, 1.5h, 500ms."""

    __slots__ = ()

    PATTERN: ClassVar = r"^([0-9]{1,9}([.][0-9]{1,9})?(ms|s|m|h))+$"
    MAX_LENGTH: ClassVar = 40

    @property
    def seconds(self) -> float:
        """In seconds."""
        parts = re.findall(r"([0-9.]+)(ms|s|m|h)", self)
        return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.PATTERN, max_length=cls.MAX_LENGTH, strict=True)
        return core_schema.no_info_after_validator_function(cls._above_zero, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        positive = {"rule": "duration(self) > duration('0s')", "message": "must be longer than 0"}
        return handler(schema) | {"x-kubernetes-validations": [positive]}

    @classmethod
    def _above_zero(cls, text: str) -> "Duration":
        made = cls(text)
        if not made.seconds:
            raise ValueError("must be longer than 0")
        return made


class Algorithm(ApiModel):
    """A sampler or pruner by the backend's own name."""

    name: Name
    """Class name in the backend (TPESampler, HyperbandPruner)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor, by their own names."""
