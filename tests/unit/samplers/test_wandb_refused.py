"""Backend wandb: what W&B cannot do is refused with what to change."""

from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import check_algorithms
from tests.unit.samplers.wandb_studies import X, a_study, sweep


@pytest.mark.parametrize(
    ("native", "fields", "complaint"),
    [
        (sweep(x=3), {}, "parameters.x: needs value, values"),
        (sweep(x={"min": 1}), {}, "x: needs value, values, min and max"),
        (sweep(x={"min": 1, "max": 1}), {}, "min 1 must be below max 1"),
        (sweep(x={"distribution": "unifrom", "min": 0, "max": 1}), {}, "did you mean uniform?"),
        (sweep(x={"min": 0, "max": 1.0, "q": 0.1}), {}, "uniform takes min, max, not q"),
        (sweep(x={"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}), {}, "q must be above 0"),
        (sweep(x={"distribution": "uniform", "min": "0", "max": 1}), {}, "min must be a finite number, got '0'"),
        (sweep(x={"distribution": "log_uniform_values", "min": 0, "max": 1}), {}, "needs a min above 0"),
        (sweep(x={"distribution": "log_uniform", "min": 0, "max": 1e5}), {}, "too large a number"),
        (sweep(x={"values": []}), {}, "at least one value"),
        (sweep(x={"values": [1, True]}), {}, "each value may be listed once"),
        (sweep(x={"values": [1, 2], "probabilities": [0.5, 0.6]}), {}, "1 in sum"),
        (sweep(x={"parameters": {}}), {}, "need names"),
        (sweep("bayes", x={"values": [1, 2], "probabilities": [0.5, 0.5]}), {}, "bayes does not take"),
        (sweep("bayes", x={"value": 1}), {}, "not constant"),
        (sweep("grid", x=X), {}, "a grid search takes categorical"),
        (sweep("grid", **{f"p{n}": {"min": 1, "max": 100} for n in range(4)}), {}, "100,000,000 points"),
        (sweep("hyperopt", x=X), {}, "must be one of bayes, grid, random"),
        (sweep("bayes", x=X), {"sampler": {"name": "random"}}, "it is bayes, and sampler is random"),
        ({**sweep(x=X), "metric": {"name": "accuracy"}}, {}, "the study's objective is 'loss'"),
        ({**sweep(x=X), "metric": {"name": "loss", "goal": "maximize"}}, {}, "says minimize"),
        ({**sweep(x=X), "metric": {"name": "loss", "target": 1}}, {}, "metric.target"),
        ({**sweep(x=X), "program": "train.py"}, {}, "program: trial says what runs"),
        ({**sweep(x=X), "run_cap": 3}, {}, "budget.maxTrials"),
        ({**sweep(x=X), "paramters": {}}, {}, "did you mean parameters?"),
        ({**sweep(x=X), "early_terminate": {"type": "median"}}, {}, "needs type hyperband"),
        ({**sweep(x=X), "early_terminate": {"type": "hyperband"}}, {}, "needs either min_iter, or max_iter and s"),
        (
            {**sweep(x=X), "early_terminate": {"type": "hyperband", "min_iter": 1}},
            {"pruner": {"name": "MedianPruner"}},
            "the study has a pruner too",
        ),
        (sweep(x=X), {"pruner": {"name": "hyperband", "options": {"min_iter": 0}}}, "pruner.options.min_iter"),
        (sweep(x=X), {"pruner": {"name": "hyperband", "options": {"max_iter": 2, "s": 1}}}, "at least eta"),
        (None, {"sampler": {"name": "Bayes"}}, "did you mean bayes?"),
        (None, {"sampler": {"name": "bayes", "options": {"sed": 1}}}, "did you mean seed?"),
        (None, {"sampler": {"name": "bayes", "options": {"seed": -1}}}, "sampler.options.seed"),
        (None, {"sampler": {"name": "bayes", "options": {"impute": "mean"}}}, "latest, best, worst"),
        (None, {"sampler": {"name": "grid"}}, "x: a grid search needs a step, or choices"),
        (
            None,
            {"objectives": [{"metric": name, "direction": "minimize"} for name in ("a", "b")]},
            "add scalarize with a weight",
        ),
    ],
)
def test_what_w_and_b_cannot_do_is_refused_with_what_to_change(
    native: dict[str, Any] | None, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(a_study(native, **fields))
    assert complaint in refusal.value.message
