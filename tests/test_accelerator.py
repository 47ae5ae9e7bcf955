"""Plans that are scored on another device: the same scores, the same plans, never those of an older model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbrl_course import accelerator
from mbrl_course.accelerator import AcceleratedModel, check_device
from mbrl_course.buffers import Batch
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.dynamics import DynamicsConfig, DynamicsModel
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect_random
from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.week02 import MPCConfig, MPCVariantsConfig, run_mpc, run_mpc_variants
from mbrl_course.mpc import Model, Planner, RandomShootingConfig, RandomShootingPlanner, make_score_fn

TASK = get_task("cheetah")
SMALL = MPCConfig(
    task="cheetah",
    hidden_sizes=(32,),
    ensemble_size=2,
    num_sequences=50,
    horizon=5,
    gradient_steps=50,
    initial_steps=500,
    steps_per_iteration=200,
    num_iterations=2,
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])


def random_data(num_steps: int = 500) -> Batch:
    return collect_random(TASK, num_steps, torch.Generator().manual_seed(0))[0]


def make_model(precision: str = "float32") -> DynamicsModel:
    """A model whose weights are those of every call."""
    config = DynamicsConfig(ensemble_size=3, hidden_sizes=(32, 32), precision=precision)
    generator = torch.Generator().manual_seed(1)
    return DynamicsModel(21, 6, config, reward=TASK.reward, generator=generator)


def sequences(count: int = 40) -> Tensor:
    return torch.rand(count, 7, 6, generator=torch.Generator().manual_seed(2)) * 2 - 1


@on_every_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_are_those_of_the_model_in_the_cpus_memory(device: str, precision: str) -> None:
    data, plain, moved = random_data(), make_model(precision), make_model(precision)
    accelerated = AcceleratedModel(moved, device)
    for _ in range(2):  # a fit in between makes new weights, buffers and rounded copies of them
        for obs in data.obs[:3]:
            expected = make_score_fn(plain, obs)(sequences())
            scores = make_score_fn(accelerated, obs)(sequences())
            assert scores.device.type == "cpu"
            difference = (scores - expected).abs()
            if precision == "float32":
                assert difference.max() < 1e-3
            else:  # a joint may be bent too far, or just not, and that costs 10
                assert difference.median() < 0.05
        plain.fit(data, num_steps=20, generator=torch.Generator().manual_seed(3))
        there = Batch(*(column.to(device) for column in data))
        moved.fit(there, num_steps=20, generator=torch.Generator().manual_seed(3))
        newest = make_score_fn(moved, data.obs[0].to(device))(sequences().to(device)).cpu()
        difference = (make_score_fn(accelerated, data.obs[0])(sequences()) - newest).abs()
        assert difference.median() < 0.05, "scores of the weights before the fit"
        moved.load_state_dict(plain.state_dict())  # what twenty steps make of rounding errors is left out


@on_every_device
def test_other_shapes_and_other_aggregates_are_scored_as_such(device: str) -> None:
    obs, plain = random_data().obs[0], make_model()
    accelerated = AcceleratedModel(make_model(), device)

    def worst(returns: Tensor) -> Tensor:
        return returns.amin(dim=0)

    for aggregate in (None, worst, None):
        for count in (40, 10, 40):
            expected = make_score_fn(plain, obs, aggregate)(sequences(count))
            scores = make_score_fn(accelerated, obs, aggregate)(sequences(count))
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


@on_every_device
def test_planners_draw_the_same_sequences_and_find_the_same_plans(device: str) -> None:
    obs = random_data().obs[0]
    bounds = (TASK.action_low, TASK.action_high)
    makers: tuple[Callable[[Model, torch.Generator], Planner], ...] = (
        lambda model, generator: RandomShootingPlanner(
            model, *bounds, RandomShootingConfig(40, 7), generator
        ),
        lambda model, generator: CEMPlanner(model, *bounds, CEMConfig(40, 8, 3, 7), generator),
    )
    for make_planner in makers:
        plans = [
            make_planner(model, torch.Generator().manual_seed(4)).plan(obs)
            for model in (make_model(), AcceleratedModel(make_model(), device))
        ]
        torch.testing.assert_close(plans[1], plans[0], rtol=0, atol=1e-4)


@on_every_device
def test_steps_come_back_and_imagined_steps_are_counted(device: str) -> None:
    data, plain = random_data(), make_model()
    accelerated = AcceleratedModel(make_model(), device)
    for got, expected in zip(
        accelerated.step(data.obs[:9], data.action[:9]),
        plain.step(data.obs[:9], data.action[:9]),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert accelerated.calls == 9
    make_score_fn(accelerated, data.obs[0])(sequences())
    assert accelerated.calls == 9 + 3 * 40 * 7


@on_every_device
def test_a_model_that_has_predicted_in_bfloat16_forgets_its_rounded_weights(device: str) -> None:
    data, model = random_data(), make_model("bfloat16")
    expected = make_score_fn(model, data.obs[0])(sequences())
    scores = make_score_fn(AcceleratedModel(model, device), data.obs[0])(sequences())
    assert (scores - expected).abs().median() < 0.05


@needs_cuda
def test_scores_do_not_depend_on_the_mode_of_the_first_plan_and_callers_keep_their_tensors() -> None:
    obs, accelerated = random_data().obs[:2].cuda(), AcceleratedModel(make_model(), "cuda")
    before, there = obs.clone(), sequences().cuda()
    with torch.inference_mode():
        first = accelerated.score_fn(obs[0])(there)
    second = accelerated.score_fn(obs[1])(sequences() + 1)
    assert first.device.type == "cuda" and second.device.type == "cpu"
    assert torch.equal(obs, before) and torch.equal(there.cpu(), sequences())


def test_what_is_captured_is_captured_again_when_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which graph is replayed when, without a GPU: the graphs are stand-ins."""

    class Graph:
        def __init__(self, *of: object) -> None:
            pass

        def __call__(self, obs: Tensor, action_sequences: Tensor) -> Tensor:
            used.append(self)
            return torch.zeros(len(action_sequences))

    def worst(returns: Tensor) -> Tensor:
        return returns.amin(dim=0)

    used: list[Graph] = []
    monkeypatch.setattr(accelerator, "_CapturedScores", Graph)
    data, model = random_data(), make_model()
    accelerated = AcceleratedModel(model, "cpu")
    accelerated._stream = object()  # type: ignore[assignment]

    def plan(count: int = 40, aggregate: Callable[[Tensor], Tensor] | None = None) -> Graph:
        accelerated.score_fn(data.obs[0], aggregate)(sequences(count))
        return used[-1]

    first = plan()
    assert plan() is first and plan(10) is not first and plan(40, worst) is not first and plan() is first
    for change in (
        lambda: model.fit(data, num_steps=1),
        lambda: model.fit(data, num_steps=0),
        lambda: model.load_state_dict(make_model().state_dict()),
        lambda: setattr(model, "reward", lambda *transition: transition[2][..., 0]),
    ):
        change()
        assert plan() is not first
        first = plan()
    for count in range(1, 2 * accelerator.MOST_CAPTURED):
        plan(count)
    assert len(accelerated._captured) == accelerator.MOST_CAPTURED


def test_a_variant_on_a_device_that_there_is_not_is_refused_before_any_has_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = {field.name: getattr(SMALL, field.name) for field in dataclasses.fields(SMALL)}
    config, run = MPCVariantsConfig(**plain, variants=("as set:", "there: device=cuda")), Run(0)
    with pytest.raises(ValueError, match="device is 'cuda'"):
        run_mpc_variants(config, run)
    assert run.rows == []


def test_a_device_that_there_is_not_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device is 'gpu', expected 'cpu' or 'cuda'"):
        check_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda', but .* here, expected 'cpu'"):
        check_device("cuda")
    with pytest.raises(ValueError, match="device is 'cuda'"):
        run_mpc(dataclasses.replace(SMALL, device="cuda"), Run(0))


@on_every_device
def test_a_model_that_has_learned_before_learns_on(device: str) -> None:
    data, model = random_data(), make_model()
    model.fit(data, num_steps=2)
    AcceleratedModel(model, device)
    result = model.fit(Batch(*(column.to(device) for column in data)), num_steps=2)
    assert len(result.train_losses) == 2


@needs_cuda
def test_the_on_policy_loop_learns_on_a_gpu_what_it_learns_on_the_cpu() -> None:
    runs = [Run(0), Run(0)]
    run_mpc(SMALL, runs[0])
    run_mpc(dataclasses.replace(SMALL, device="cuda"), runs[1])
    cpu, cuda = (run.rows for run in runs)
    assert [row["model_calls"] for row in cpu] == [row["model_calls"] for row in cuda]
    assert cpu[0]["eval_return"] == cuda[0]["eval_return"]  # the random policy's
    assert cuda[1]["loss"] == pytest.approx(cpu[1]["loss"], rel=0.05)
