"""The form of a space that is HPStudy's own, for every backend."""

from collections.abc import Mapping

from hpstudy.api.study import Parameter
from hpstudy.space.dimensions import Dimension, categorical_dimension, float_dimension, int_dimension


def dimensions(native: Mapping[str, Parameter]) -> list[Dimension]:
    """Read ``searchSpace.parameters``."""
    return [_dimension(name, parameter) for name, parameter in native.items()]


def _dimension(name: str, parameter: Parameter) -> Dimension:
    when = {parent: tuple(values) for parent, values in (parameter.when or {}).items()}
    if parameter.type == "categorical":
        return categorical_dimension(name, parameter.choices or [], when=when)
    assert parameter.low is not None
    assert parameter.high is not None
    low, high, log = parameter.low, parameter.high, parameter.log
    if parameter.type == "int":
        return int_dimension(name, int(low), int(high), log=log, step=int(parameter.step or 1), when=when)
    return float_dimension(name, low, high, log=log, step=parameter.step, when=when)
