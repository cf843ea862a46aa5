"""What every type of the resource shares: camelCase names, no unknown fields, and rules checked alike everywhere.

A :class:`Rule` is written once and enforced twice with the same words: by the API server as a CEL expression
(``x-kubernetes-validations`` in the generated CRD) and by pydantic wherever a manifest is read without a cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Rule:
    """A condition on one object of the resource.

    ``cel`` is None where CEL cannot see the values (a list of mixed scalars, say): the rule then holds in Python
    alone, and a study that breaks it in a cluster ends as ``Accepted=False``.
    """

    message: str
    holds: Callable[[Any], bool]
    cel: str | None = None


class ApiModel(BaseModel):
    """A frozen object of the HPStudy API; ``rules`` are its cross-field conditions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        validations = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules if rule.cel]
        if validations:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = validations
        return schema


def exactly_one(what: str, *fields: str) -> Rule:
    """The rule that exactly one of the fields (Python names) is set."""
    names = [to_camel(field.rstrip("_")) for field in fields]
    return Rule(
        message=f"{what} must have exactly one of {', '.join(names)}",
        holds=lambda model: sum(getattr(model, field) is not None for field in fields) == 1,
        cel=f"[{', '.join(f'has(self.{name})' for name in names)}].filter(set, set).size() == 1",
    )
