"""Backend sigopt with a server of one's own: SigOpt's real client against its REST protocol on the loopback."""

import logging
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import sigopt_server
from hpstudy.samplers.build import build_sampler
from hpstudy.samplers.sigopt import TOKEN, URL
from hpstudy.space.load import read_space
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.support.trials import complete, take
from tests.unit.samplers.sigopt_rest import TOKEN as SECRET
from tests.unit.samplers.sigopt_rest import Experiment, SigOptRest, serving

NAME = "reviews"
X = {"name": "x", "type": "double", "bounds": {"min": 0, "max": 1}}
BATCH = {"name": "batch", "type": "categorical", "categorical_values": ["16", "32"]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SigOptRest]:
    with serving() as rest:
        monkeypatch.setenv(URL, rest.url)
        monkeypatch.setenv(TOKEN, SECRET)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(sigopt_server, "_RETRY_SECONDS", 0.001)
        yield rest


def a_spec(space: Any = (X, BATCH), **fields: Any) -> StudySpec:
    form = {"parameters": space} if isinstance(space, dict) else {"sigopt": list(space)}
    return spec(**{"backend": "sigopt", "searchSpace": form, "budget": {"maxTrials": 6}} | fields)


def only(server: SigOptRest) -> Experiment:
    assert len(server.experiments) == 1
    return next(iter(server.experiments.values()))


def test_a_study_of_two_groups_is_one_experiment_that_has_every_trial_once(server: SigOptRest, url: str) -> None:
    of = a_spec(parallelism=2)
    with TrialLoop(of, url, NAME, 0) as one, TrialLoop(of, url, NAME, 1) as other:
        for _ in range(3):
            running = [(loop, take(loop)) for loop in (one, other)]
            assert len(only(server).open_suggestions) == 2, "trials in flight count"
            for loop, assigned in running:
                loop.tell(assigned, complete(assigned.parameters["x"]))
        assert one.next() == other.next()
        trials = one.study.get_trials()
    experiment = only(server)
    assert experiment.body["name"] == NAME
    assert experiment.body["parameters"] == [{**X, "bounds": {"min": 0.0, "max": 1.0}}, BATCH]
    assert experiment.body["metrics"] == [{"name": "loss", "objective": "minimize", "strategy": "optimize"}]
    assert (experiment.body["observation_budget"], experiment.body["parallel_bandwidth"]) == (6, 2)
    assert experiment.by_trial.keys() == set(range(6))
    assert not experiment.open_suggestions
    for trial in trials:
        observation = experiment.by_trial[trial.number]
        assert observation["assignments"] == trial.params, "the server's suggestions are the trials"
        assert observation["values"] == [{"name": "loss", "value": trial.value}]
        assert observation["suggestion"] in experiment.suggestions
        assert experiment.suggestions[observation["suggestion"]]["metadata"] == {"trial": trial.number}


def test_failed_trials_are_failed_and_pruned_ones_have_their_last_report(server: SigOptRest, url: str) -> None:
    of = a_spec(budget={"maxTrials": 6, "maxFailedTrials": 5}, pruner={"name": "NopPruner"})
    with TrialLoop(of, url, NAME) as loop:
        loop.tell(take(loop), Outcome(failure=Failure.ERROR, message="no luck"))
        pruned = take(loop)
        loop.report(pruned, 1, {"loss": 7.0})
        loop.report(pruned, 2, {"loss": 5.0})
        loop.tell(pruned, Outcome(pruned=True))
        loop.tell(take(loop), Outcome(pruned=True))
    observed = only(server).by_trial
    assert [observed[number]["failed"] for number in range(3)] == [True, False, True]
    assert observed[1]["values"] == [{"name": "loss", "value": 5.0}]


def test_given_trials_take_no_suggestion_and_are_observed_by_their_values(server: SigOptRest, url: str) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop:
        loop.study.enqueue_trial({"x": 0.25, "batch": "32"})
        loop.study.enqueue_trial({"x": 0.75})
        whole = take(loop)
        assert whole.parameters == {"x": 0.25, "batch": "32"}
        assert not only(server).suggestions
        partial = take(loop)
        assert not only(server).open_suggestions, "it is not what the server suggested"
        loop.tell(whole, complete(1))
        loop.tell(partial, complete(2))
    observed = only(server).by_trial
    assert observed[0]["assignments"] == {"x": 0.25, "batch": "32"}
    assert observed[1]["assignments"] == partial.parameters
    assert partial.parameters["x"] == 0.75
    assert {observation["suggestion"] for observation in observed.values()} == {None}


def test_the_suggestion_of_a_lost_trial_is_taken_back_and_its_values_run_again(server: SigOptRest, url: str) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop:
        lost = take(loop)
    with TrialLoop(a_spec(), url, NAME) as loop:
        again = take(loop)
        assert again.parameters == lost.parameters
        assert not only(server).open_suggestions
        loop.tell(again, complete())
    assert only(server).by_trial.keys() == {1}
    assert only(server).by_trial[1]["assignments"] == lost.parameters


def test_a_restart_goes_on_with_the_same_experiment_and_its_budget_may_change(server: SigOptRest, url: str) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop:
        loop.tell(take(loop), complete())
    with TrialLoop(a_spec(budget={"maxTrials": 60}, parallelism=3), url, NAME) as loop:
        loop.tell(take(loop), complete())
    assert only(server).by_trial.keys() == {0, 1}
    assert (only(server).body["observation_budget"], only(server).body["parallel_bandwidth"]) == (60, 3)


def test_what_the_server_missed_is_reported_once_at_the_next_ask(server: SigOptRest, url: str) -> None:
    server.page = 2
    with TrialLoop(a_spec(), url, NAME) as loop:
        for _ in range(3):
            loop.tell(take(loop), complete())
        missed, observed_without_answer = take(loop), take(loop)
        server.broken = lambda method, path: 503 if path.endswith("observations") else None
        loop.tell(missed, complete(4))
        server.broken = lambda method, path: 0 if path.endswith("observations") else None
        loop.tell(observed_without_answer, complete(5))
        server.broken = lambda method, path: None
        assert only(server).by_trial.keys() == {0, 1, 2, 4}
    with TrialLoop(a_spec(), url, NAME) as loop:
        loop.tell(take(loop), complete())
    assert only(server).by_trial.keys() == set(range(6))
    assert only(server).by_trial[3]["values"] == [{"name": "loss", "value": 4.0}]


def test_a_request_without_answer_leaves_no_suggestion_behind(server: SigOptRest, url: str) -> None:
    answers = [503, 0, 502]
    server.broken = lambda method, path: (
        answers.pop(0) if answers and method == "POST" and path.endswith("suggestions") else None
    )
    with TrialLoop(a_spec(), url, NAME) as loop:
        taken = take(loop)
        open_now = only(server).open_suggestions
    assert not answers
    assert [suggestion["assignments"] for suggestion in open_now] == [taken.parameters]


def test_a_group_waits_for_a_server_that_is_away(
    server: SigOptRest, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop, caplog.at_level(logging.DEBUG):
        server.broken = lambda method, path: 500
        for _ in range(12):
            assert loop.next() == Verdict(Next.WAIT)
        assert not loop.study.get_trials(), "none is made that has no values yet"
        loop.study.enqueue_trial({"x": 0.5, "batch": "16"})
        given = take(loop)
        loop.tell(given, complete())
        server.broken = lambda method, path: None
        take(loop)
        assert only(server).by_trial.keys() == {given.number}
        server.broken = lambda method, path: 500
        monkeypatch.setattr(sigopt_server, "OUTAGE_LIMIT", 0.0)
        with pytest.raises(InvalidStudyError, match="SigOpt server has not answered for 0 minutes: 500: broken"):
            loop.next()
    assert "the SigOpt server does not answer: 500: broken" in caplog.text
    assert SECRET not in caplog.text


def test_a_server_that_is_not_there_is_away(
    server: SigOptRest, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(URL, "http://127.0.0.1:9")  # the discard service: nobody listens
    with TrialLoop(a_spec(), url, NAME) as loop:
        assert loop.next() == Verdict(Next.WAIT)
    assert "Connection refused" in caplog.text
    assert "support@sigopt.com" not in caplog.text


def test_a_deleted_experiment_is_made_again_with_all_observations(server: SigOptRest, url: str) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop:
        for value in range(3):
            loop.tell(take(loop), complete(value))
    first = only(server)
    first.body["state"] = "deleted"
    with TrialLoop(a_spec(), url, NAME) as loop:
        take(loop)
    _, second = server.experiments.values()
    assert {n: o["values"] for n, o in second.by_trial.items()} == {n: o["values"] for n, o in first.by_trial.items()}
    assert len(second.open_suggestions) == 1


def test_an_experiment_that_is_deleted_while_the_study_runs_is_made_again(server: SigOptRest, url: str) -> None:
    with TrialLoop(a_spec(), url, NAME) as loop:
        loop.tell(take(loop), complete())
        only(server).body["state"] = "deleted"
        loop.tell(take(loop), complete())
        take(loop)
    _, second = server.experiments.values()
    assert second.by_trial.keys() == {0, 1}
    assert len(second.open_suggestions) == 1


def test_other_options_are_another_experiment_with_the_same_observations(server: SigOptRest, url: str) -> None:
    constraint = {"type": "less_than", "threshold": 0.5, "terms": [{"name": "x", "weight": 1}]}
    with TrialLoop(a_spec(), url, NAME) as loop:
        loop.study.enqueue_trial({"x": 0.9, "batch": "16"})
        loop.study.enqueue_trial({"x": 0.1, "batch": "16"})
        for value in range(2):
            loop.tell(take(loop), complete(value))
    sampler = {"name": "random", "options": {"linear_constraints": [constraint]}}
    with TrialLoop(a_spec(sampler=sampler), url, NAME) as loop:
        take(loop)
    _, second = server.experiments.values()
    assert second.body["type"] == "random"
    assert second.body["linear_constraints"] == [constraint]
    assert second.by_trial.keys() == {1}, "the server refuses what breaks its constraint, and the study goes on"


def test_conditions_are_the_servers_own_where_it_has_them(server: SigOptRest, url: str) -> None:
    space = {
        "optim": {"type": "categorical", "choices": ["adam", None]},
        "beta": {"type": "float", "low": 0, "high": 1, "when": {"optim": ["adam"]}},
        "layers": {"type": "int", "low": 1, "high": 2},
        "width": {"type": "int", "low": 8, "high": 64, "step": 8, "when": {"layers": [2]}},
        "rate": {"type": "int", "low": 1, "high": 1000, "log": True},
        "fixed": {"type": "categorical", "choices": [True]},
    }
    with TrialLoop(a_spec(space, budget={"maxTrials": 30}), url, NAME) as loop:
        loop.study.enqueue_trial({"optim": None, "layers": 1, "rate": 7, "fixed": True})
        taken = [take(loop) for _ in range(12)]
        for assigned in taken:
            loop.tell(assigned, complete())
    experiment = only(server)
    assert experiment.body["conditionals"] == [{"name": "optim", "values": ["adam", "null"]}]
    parameters = {parameter["name"]: parameter for parameter in experiment.body["parameters"]}
    assert parameters.keys() == {"beta", "layers", "width", "rate"}
    assert parameters["beta"]["conditions"] == {"optim": ["adam"]}
    assert parameters["width"] == {"name": "width", "type": "int", "grid": [8, 16, 24, 32, 40, 48, 56, 64]}
    assert parameters["rate"]["transformation"] == "log"
    assert experiment.by_trial.keys() == set(range(12))
    for assigned in taken:
        values, observed = assigned.parameters, experiment.by_trial[assigned.number]["assignments"]
        assert ("beta" in values) == ("beta" in observed) == (values["optim"] == "adam")
        assert ("width" in values) == (values["layers"] == 2)
        assert values["fixed"] is True
        assert observed["rate"] == values["rate"], "as it was run: rounded"
        assert type(values["rate"]) is int
    assert not experiment.open_suggestions


def test_sigopts_own_form_reaches_the_server_verbatim(server: SigOptRest, url: str) -> None:
    prior = {"name": "beta", "shape_a": 2.0, "shape_b": 5.0}
    conditional = {"name": "optimizer", "values": ["adam", "sgd"]}
    parameters = [
        {"name": "x", "type": "double", "bounds": {"min": 0.0, "max": 1.0}, "prior": prior},
        {"name": "rate", "type": "double", "grid": [1e-5, 1e-4, 1e-2], "transformation": "log"},
        {"name": "beta", "type": "int", "grid": [1, 3], "default_value": 1, "conditions": {"optimizer": ["adam"]}},
        {"name": "epochs", "type": "int", "bounds": {"min": 1, "max": 5}},
        BATCH,
    ]
    with TrialLoop(a_spec([*parameters, conditional]), url, NAME) as loop:
        for _ in range(5):
            loop.tell(take(loop), complete())
    body = only(server).body
    by_name = {parameter["name"]: parameter for parameter in body["parameters"]}
    assert by_name == {parameter["name"]: parameter for parameter in parameters}
    assert body["conditionals"] == [conditional]
    assert all(observation["suggestion"] for observation in only(server).by_trial.values())


def test_two_objectives_are_two_metrics(server: SigOptRest, url: str) -> None:
    objectives = [{"metric": "loss", "direction": "minimize"}, {"metric": "f1", "direction": "maximize"}]
    with TrialLoop(a_spec(objectives=objectives), url, NAME) as loop:
        loop.tell(take(loop), Outcome(values=(0.5, 0.9)))
    with TrialLoop(a_spec(objectives=objectives, budget={"maxTrials": 9}, parallelism=2), url, NAME) as loop:
        take(loop)
    experiment = only(server)
    assert [metric["objective"] for metric in experiment.body["metrics"]] == ["minimize", "maximize"]
    assert experiment.by_trial[0]["values"] == [{"name": "loss", "value": 0.5}, {"name": "f1", "value": 0.9}]
    assert (experiment.body["observation_budget"], experiment.body["parallel_bandwidth"]) == (6, 2)


def test_a_weighted_sum_is_one_metric(server: SigOptRest, url: str) -> None:
    objectives = [{"metric": "loss", "direction": "minimize"}, {"metric": "f1", "direction": "maximize"}]
    of = a_spec(objectives=objectives, scalarize={"weights": {"loss": 1, "f1": 2}})
    with TrialLoop(of, url, NAME) as loop:
        loop.tell(take(loop), Outcome(values=(0.5, 0.9)))
    assert only(server).body["metrics"] == [{"name": "weighted sum", "objective": "minimize", "strategy": "optimize"}]
    assert only(server).by_trial[0]["values"] == [{"name": "weighted sum", "value": pytest.approx(-1.3)}]


def test_hyperbands_brackets_hide_no_trial_from_the_server(server: SigOptRest, url: str) -> None:
    pruner = {"name": "HyperbandPruner", "options": {"min_resource": 1, "max_resource": 9}}
    with TrialLoop(a_spec(pruner=pruner), url, NAME) as loop:
        for value in range(6):
            assigned = take(loop)
            loop.report(assigned, 1, {"loss": float(value)})
            loop.tell(assigned, complete(value))
        verdict = loop.next()
    assert isinstance(verdict, Verdict)
    assert verdict.next is not Next.ASK
    assert only(server).by_trial.keys() == set(range(6))


def test_a_token_that_the_server_refuses_is_the_users_to_correct(
    server: SigOptRest, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "REVOKED")
    with TrialLoop(a_spec(), url, NAME) as loop, pytest.raises(InvalidStudyError) as refusal:
        loop.next()
    assert refusal.value.reason == reasons.SAMPLER_FAILED
    assert "refuses the token of SIGOPT_API_TOKEN (403)" in refusal.value.message
    assert "REVOKED" not in refusal.value.message


def test_what_the_server_refuses_is_said_in_its_words(server: SigOptRest, url: str) -> None:
    space = [X, {**BATCH, "categorical_values": ["16", "3" * 60]}]
    with (
        TrialLoop(a_spec(space), url, NAME) as loop,
        pytest.raises(InvalidStudyError, match="the SigOpt server refuses it: 400: categorical value"),
    ):
        loop.next()


@pytest.mark.parametrize(("option", "value"), [("seed", 1), ("compute_mode", "kde_only")])
def test_options_of_the_optimiser_in_the_process_are_refused(server: SigOptRest, option: str, value: Any) -> None:
    of = a_spec(sampler={"name": "offline", "options": {option: value}})
    with pytest.raises(InvalidStudyError, match=f"sampler.options.{option}: a sigopt-server"):
        build_sampler(of, read_space(of))
    assert not server.requests, "nothing is asked before the first trial"


def test_a_project_holds_the_experiment(server: SigOptRest, url: str) -> None:
    of = a_spec(sampler={"name": "offline", "options": {"project": "sentiment"}})
    with TrialLoop(of, url, NAME) as loop:
        trial = take(loop)
        assert loop.study.get_trials()[trial.number].state is TrialState.RUNNING
    assert only(server).body["project"] == "sentiment"
    assert optuna.load_study(study_name=NAME, storage=url).trials[0].params.keys() == {"x", "batch"}
