"""Values as people read them."""

from collections.abc import Mapping
from typing import Any


def format_value(value: Any) -> str:
    """Four significant digits for a float, the rest as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_values(values: Mapping[str, Any]) -> str:
    """eval_f1 0.7812, eval_loss 0.51"""
    return ", ".join(f"{name} {format_value(value)}" for name, value in values.items())


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """learning_rate=0.001 optim=adamw_torch"""
    return " ".join(f"{name}={format_value(value)}" for name, value in parameters.items())


def format_seconds(seconds: float) -> str:
    """8.1 s, 2 min 05 s, 3 h 12 min"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
