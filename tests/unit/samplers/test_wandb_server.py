"""Backend wandb with a server: the real client package against a server on the loopback interface."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState, create_trial

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import wandb_client
from hpstudy.samplers.build import build_pruner, build_sampler
from hpstudy.samplers.wandb_server import ServerSampler, StopByServerPruner
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.support.trials import take
from tests.unit.samplers.wandb_loopback import KEY, WandbServer, wandb_server

NATIVE = {
    "method": "random",
    "name": "tuning",
    "project": "reviews",
    "metric": {"name": "objective", "goal": "minimize"},
    "parameters": {
        "x": {"min": 0.0, "max": 1.0},
        "optimizer": {"parameters": {"name": {"values": ["sgd", "adam"]}, "steps": {"min": 1, "max": 4}}},
    },
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A server that the environment names, and nothing of the machine's own W&B settings."""
    with wandb_server() as made:
        made.name_in(monkeypatch, tmp_path)
        yield made


def a_study(native: dict[str, Any] | None = None, **fields: Any) -> StudySpec:
    return spec(**{"backend": "wandb", "searchSpace": {"wandb": native or NATIVE}, **fields})


def stored(url: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=open_storage(url))


def run_of(server: WandbServer, study: optuna.Study, number: int) -> Any:
    return server.runs[study.trials[number].user_attrs[attributes.WANDB_RUN]]


def fast(loop: TrialLoop) -> ServerSampler:
    sampler = loop.study.sampler
    assert isinstance(sampler, ServerSampler)
    sampler._heartbeat_seconds = 0.05
    return sampler


def test_trials_are_runs_of_a_sweep_and_shown_as_they_end(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        complete = take(loop)
        assert not loop.report(complete, 1, {"loss": 0.5, "eval_f1": 0.7})
        loop.tell(complete, Outcome(values=(0.4,), metrics={"loss": 0.4, "eval_f1": 0.8}))
        pruned = take(loop)
        loop.report(pruned, 1, {"loss": 0.9})
        loop.tell(pruned, Outcome(pruned=True, metrics={"loss": 0.9}))
        failed = take(loop)
        loop.tell(failed, Outcome(failure=Failure.ERROR, message="boom"))
        study = loop.study

        [sweep] = server.sweeps.values()
        assert sweep.project == "reviews"
        written = json.loads(json.dumps(NATIVE))
        written["parameters"]["x"]["distribution"] = "uniform"  # the client names what it infers
        assert sweep.config == written, "verbatim"
        assert len(server.agents) == 1
        runs = [run_of(server, study, number) for number in range(3)]
        assert [run.state for run in runs] == ["finished", "killed", "failed"]
        assert all(run.suggested and run.sweep == "sweep0" and run.project == "reviews" for run in runs)
        assert [run.name for run in runs] == ["trial 0", "trial 1", "trial 2"]
        for run, assigned in zip(runs, (complete, pruned, failed), strict=True):
            assert {key: entry["value"] for key, entry in run.config.items()} == assigned.parameters
        history = [{k: v for k, v in line.items() if k[0] != "_"} for line in runs[0].history]
        assert history == [{"loss": 0.5, "eval_f1": 0.7, "objective": 0.5}]
        assert runs[0].history[0]["_step"] == 1
        assert {k: runs[0].summary[k] for k in ("loss", "eval_f1", "objective")} == {
            "loss": 0.4,
            "eval_f1": 0.8,
            "objective": 0.4,
        }


def test_two_groups_share_one_sweep_and_a_restart_goes_on_with_it(server: WandbServer, url: str) -> None:
    study = a_study(parallelism=2)
    with TrialLoop(study, url, "study", 0) as loop, TrialLoop(study, url, "study", 1) as other:
        assignments = [take(loop), take(other)]
        for group, assigned in zip((loop, other), assignments, strict=True):
            group.tell(assigned, Outcome(values=(1.0,)))
    with TrialLoop(study, url, "study", 0) as loop:
        loop.tell(take(loop), Outcome(values=(1.0,)))
        made = loop.study.user_attrs[attributes.WANDB_SWEEP]
    assert list(server.sweeps) == ["sweep0"]
    assert made == {"sweep": "sweep0", "project": "reviews", "entity": "team", "server": server.url}
    assert set(server.agents.values()) == {"sweep0"}
    assert len(server.agents) == 3
    assert [run.state for run in server.runs.values()] == ["finished"] * 3


def test_bayes_on_the_server_learns_from_the_values_that_were_told(server: WandbServer, url: str) -> None:
    native = {"method": "bayes", "parameters": {"x": {"min": -2.0, "max": 2.0}}}
    with TrialLoop(a_study(native), url, "study") as loop:
        values = []
        for _ in range(8):
            assigned = take(loop)
            values.append((assigned.parameters["x"] - 1) ** 2)
            loop.tell(assigned, Outcome(values=(values[-1],)))
    assert [run.summary["loss"] for run in server.runs.values()] == pytest.approx(values)
    assert min(values) < 0.05


def test_of_several_objectives_the_server_sees_the_weighted_sum(server: WandbServer, url: str) -> None:
    native = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    objectives = [{"metric": "loss", "direction": "minimize"}, {"metric": "f1", "direction": "maximize"}]
    study = a_study(native, objectives=objectives, scalarize={"weights": {"loss": 1.0, "f1": 2.0}})
    with TrialLoop(study, url, "study") as loop:
        assigned = take(loop)
        loop.report(assigned, 1, {"loss": 3.0, "f1": 0.5})
        loop.tell(assigned, Outcome(values=(2.0, 0.75), metrics={"loss": 2.0, "f1": 0.75}))
    [run] = server.runs.values()
    assert server.sweeps["sweep0"].config["metric"] == {"name": "objective", "goal": "minimize"}
    assert [line["objective"] for line in run.history] == [2.0]
    assert {name: run.summary[name] for name in ("objective", "loss", "f1")} == {
        "objective": 0.5,
        "loss": 2.0,
        "f1": 0.75,
    }


def test_trials_of_a_warm_start_are_told_to_the_server(server: WandbServer, url: str) -> None:
    native = {"method": "grid", "parameters": {"x": {"values": [1, 2]}}}
    with TrialLoop(a_study(native), url, "default/earlier") as loop:
        loop.tell(take(loop), Outcome(values=(0.5,)))
    study = a_study(native, warmStartFrom=[{"study": "earlier"}])
    with TrialLoop(study, url, "default/study") as loop:
        assert take(loop).parameters == {"x": 2}
    shown = [run for run in server.runs.values() if run.sweep == "sweep1" and not run.suggested]
    assert [(run.config["x"]["value"], run.summary["loss"]) for run in shown] == [(1, 0.5)]


def test_trials_with_their_own_values_take_no_run_and_are_shown_in_the_sweep(server: WandbServer, url: str) -> None:
    study = a_study(
        {"method": "grid", "parameters": {"x": {"values": [1, 2]}, "y": {"values": ["a", "b"]}}},
        initialTrials=[{"x": 2, "y": "b"}, {"x": 1}],
    )
    with TrialLoop(study, url, "study") as loop:
        whole = take(loop)
        assert whole.parameters == {"x": 2, "y": "b"}
        loop.tell(whole, Outcome(values=(1.0,)))
        half = take(loop)
        assert half.parameters["x"] == 1
        loop.tell(half, Outcome(values=(2.0,)))
        assert server.beats == []
        first, second = (run_of(server, loop.study, number) for number in (0, 1))
        assert first.config == {"x": {"value": 2}, "y": {"value": "b"}}
        assert second.config["y"]["value"] == half.parameters["y"]
        assert not first.suggested
        assert [first.state, second.state] == ["finished", "finished"]
        rest = [take(loop).parameters for _ in range(1)]
        assert rest[0] not in [whole.parameters, half.parameters], "the server's grid knows them"


def test_a_lost_trial_runs_again_as_a_run_of_its_own(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        lost = take(loop)
        loop.tell(lost, Outcome(failure=Failure.PREEMPTED, message="told to stop"))
        again = take(loop)
        assert again.parameters == lost.parameters
        loop.tell(again, Outcome(values=(1.0,)))
        assert sum(run.suggested for run in server.runs.values()) == 1
        assert [run_of(server, loop.study, number).state for number in (0, 1)] == ["killed", "finished"]


def test_a_finished_grid_on_the_server_ends_the_study(server: WandbServer, url: str) -> None:
    native = {"method": "grid", "parameters": {"x": {"values": [1, 2]}}}
    study = a_study(native, budget={"maxTrials": 50}, parallelism=2)
    with TrialLoop(study, url, "study", 0) as loop, TrialLoop(study, url, "study", 1) as other:
        first, second = take(loop), take(other)
        assert {first.parameters["x"], second.parameters["x"]} == {1, 2}
        loop.tell(first, Outcome(values=(1.0,)))
        assert loop.next() == Verdict(Next.WAIT), "a trial that is lost will be run again"
        other.tell(second, Outcome(values=(1.0,)))
        ended = other.next()
        assert isinstance(ended, Verdict)
        assert (ended.next, ended.reason) == (Next.SUCCEEDED, reasons.SPACE_EXHAUSTED)
        assert ended.message == "the W&B sweep sweep0 is over"
        assert loop.next() == ended, "the storage has it"


def test_a_stop_from_the_server_prunes_the_trial(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        fast(loop)
        assigned = take(loop)
        assert not loop.report(assigned, 1, {"loss": 1.0})
        server.stops.add("run0")
        assert server.stopped.wait(10)
        sampler = fast(loop)
        while not sampler.is_stopped(assigned.number):
            threading.Event().wait(0.01)
        assert loop.report(assigned, 2, {"loss": 1.0})
        loop.tell(assigned, Outcome(pruned=True))
        assert stored(url).trials[0].state is TrialState.PRUNED
        assert server.runs["run0"].state == "killed"
        assert {"run0": True} in server.beats, "the agent says what it has in hand"
        another = take(loop)
        assert not loop.report(another, 1, {"loss": 1.0})


def test_cancelling_the_sweep_stops_what_runs_and_ends_the_study(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        sampler = fast(loop)
        assigned = take(loop)
        server.commands.append({"type": "exit"})
        while not sampler.is_stopped(assigned.number):
            threading.Event().wait(0.01)
        assert loop.report(assigned, 1, {"loss": 1.0})
        loop.tell(assigned, Outcome(pruned=True))
        ended = loop.next()
        assert isinstance(ended, Verdict)
        assert ended.next is Next.SUCCEEDED


def test_a_paused_sweep_makes_the_group_wait_and_makes_no_trial(server: WandbServer, url: str) -> None:
    server.paused = True
    with TrialLoop(a_study(), url, "study") as loop:
        assert loop.next() == Verdict(Next.WAIT)
        assert loop.study.trials == []
        server.paused = False
        assert take(loop).number == 0


def test_a_sweep_that_was_finished_or_deleted_in_w_and_b_ends_the_study(server: WandbServer, url: str) -> None:
    server.paused = True
    with TrialLoop(a_study(), url, "study") as loop:
        sampler = fast(loop)
        sampler._patience = 0
        assert loop.next() == Verdict(Next.WAIT)
        server.sweeps["sweep0"].state = "CANCELED"
        ended = loop.next()
        assert isinstance(ended, Verdict)
        assert "sweep0 is canceled" in ended.message
    other = url.replace("study.db", "other.db")
    with TrialLoop(a_study(), other, "study") as loop:
        assert loop.next() == Verdict(Next.WAIT)
        server.deleted = True
        ended = loop.next()
        assert isinstance(ended, Verdict)
        assert "was deleted" in ended.message


def test_trials_from_before_the_sweep_are_added_to_it(server: WandbServer) -> None:
    study_spec = a_study({"method": "grid", "parameters": {"x": {"values": [1, 2]}}})
    space = read_space(study_spec)
    assert space is not None
    sampler = build_sampler(study_spec, space)
    assert isinstance(sampler, ServerSampler)
    study = optuna.create_study(sampler=sampler, study_name="study")
    study.add_trial(create_trial(params={"x": 1}, distributions=space.distributions, value=0.5))
    try:
        trial = study.ask()
        assert space.suggest(trial) == {"x": 2}, "asked directly too, as Optuna's own loop does"
        earlier = next(run for run in server.runs.values() if not run.suggested)
        assert (earlier.config["x"]["value"], earlier.summary["loss"], earlier.state) == (1, 0.5, "finished")
    finally:
        sampler.close()


def test_a_server_that_refuses_the_key_or_the_sweep_is_a_fault_of_the_study(
    server: WandbServer, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = KEY[::-1]
    monkeypatch.setenv("WANDB_API_KEY", wrong)
    with TrialLoop(a_study(), url, "study") as loop, pytest.raises(InvalidStudyError) as refusal:
        loop.next()
    assert "refuses WANDB_API_KEY" in refusal.value.message
    assert wrong not in caplog.text + refusal.value.message
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    server.refusals["upsertSweep"] = (400, "no such entity")
    with TrialLoop(a_study(), url, "study") as loop, pytest.raises(InvalidStudyError) as refusal:
        loop.next()
    assert "no such entity" in refusal.value.message
    assert KEY not in caplog.text + refusal.value.message


def test_a_study_stays_on_the_server_of_its_sweep(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        loop.study.set_user_attr(
            attributes.WANDB_SWEEP, {"sweep": "s", "project": "p", "entity": None, "server": "https://elsewhere"}
        )
        with pytest.raises(InvalidStudyError, match="sweep s is on https://elsewhere"):
            loop.next()


def test_a_trial_goes_on_when_the_server_cannot_show_it(
    server: WandbServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        server.refusals["upsertBucket"] = (400, "no room")
        assigned = take(loop)
        loop.report(assigned, 1, {"loss": 1.0})
        loop.tell(assigned, Outcome(values=(0.5,)))
        server.refusals.clear()
        loop.tell(take(loop), Outcome(values=(0.4,)))
        assert [trial.value for trial in loop.study.trials] == [0.5, 0.4]
        assert server.runs["run1"].state == "finished"
    assert "W&B does not show a trial" in caplog.text


@pytest.mark.parametrize("option", ["seed", "randomize_order"])
def test_what_only_the_engine_in_process_can_do_is_refused(server: WandbServer, option: str) -> None:
    value: Any = {"seed": 1, "randomize_order": True}[option]
    native = {"method": "grid", "parameters": {"x": {"values": [1, 2]}}}
    study = a_study(native, sampler={"name": "grid", "options": {option: value}})
    with pytest.raises(InvalidStudyError, match=f"sampler.options.{option}: a W&B server"):
        build_sampler(study, read_space(study))


def test_hyperband_by_name_becomes_the_sweep_s_early_terminate(server: WandbServer, url: str) -> None:
    study = spec(backend="wandb", pruner={"name": "hyperband", "options": {"min_iter": 3}})
    with TrialLoop(study, url, "study") as loop:
        take(loop)
        assert isinstance(loop.study.pruner, StopByServerPruner)
    config = server.sweeps["sweep0"].config
    assert config["early_terminate"] == {"type": "hyperband", "min_iter": 3}
    assert config["parameters"] == {"x": {"distribution": "uniform", "min": -2, "max": 2}}
    assert config["metric"] == {"name": "loss", "goal": "minimize"}


def test_optuna_s_pruners_work_beside_the_server(server: WandbServer, url: str) -> None:
    study = a_study(pruner={"name": "ThresholdPruner", "options": {"upper": 5.0}})
    assert isinstance(build_pruner(study), StopByServerPruner)
    with TrialLoop(study, url, "study") as loop:
        assigned = take(loop)
        assert not loop.report(assigned, 1, {"loss": 4.0})
        assert loop.report(assigned, 2, {"loss": 6.0})


def test_offline_mode_needs_no_server(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    study = a_study()
    assert not isinstance(build_sampler(study, read_space(study)), ServerSampler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the client's own threads
def test_the_group_outlives_the_client_s_own_process(server: WandbServer, url: str) -> None:
    with TrialLoop(a_study(), url, "study") as loop:
        fast(loop)._patience = 0
        assigned = take(loop)
        [core] = [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]
        core.kill()
        core.wait(10)
        loop.report(assigned, 1, {"loss": 0.5})
        loop.tell(assigned, Outcome(values=(0.5,)))
        assert loop.next() == Verdict(Next.WAIT)
        again = take(loop)
        loop.tell(again, Outcome(values=(0.4,)))
        assert [trial.value for trial in loop.study.trials] == [0.5, 0.4]
        assert list(server.sweeps) == ["sweep0"]
        assert run_of(server, loop.study, 1).state == "finished"


def test_a_client_process_that_hangs_is_not_waited_for(
    server: WandbServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_client, "_TEARDOWN_TIMEOUT", 0.5)
    with TrialLoop(a_study(), url, "study") as loop:
        loop.tell(take(loop), Outcome(values=(0.5,)))
        [core] = [child for child in psutil.Process().children() if child.name().startswith("wandb-core")]
        core.suspend()
    assert not core.is_running() or core.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_is_away_for_long_ends_the_group_with_the_reason(
    server: WandbServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_client, "_TIMEOUT", 1)
    with TrialLoop(a_study(), url, "study") as loop:
        assert loop.next() == Verdict(Next.WAIT)
        fast(loop)._outage_limit = 0
        with pytest.raises(InvalidStudyError, match=r"no answer for 0 minutes: W&B: "):
            loop.next()
        assert loop.study.trials == []
