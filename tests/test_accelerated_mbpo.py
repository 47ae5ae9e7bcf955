"""MBPO on another device: the same agent step by step where that is the CPU, and one that learns on a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mbrl_course import accelerated_mbpo
from mbrl_course.accelerated_mbpo import AcceleratedMBPO, AcceleratedSAC
from mbrl_course.buffers import Batch
from mbrl_course.ensembles import GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.envs.task import Task
from mbrl_course.evaluation import evaluate
from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.week07 import MBPORunConfig, make_agent, run_mbpo
from mbrl_course.experiments.week08 import ClinicMBPOConfig, run_clinic_mbpo
from mbrl_course.mbpo import MBPO, MBPOConfig
from mbrl_course.sac import SAC, SACConfig
from test_accelerator import needs_cuda
from test_mbpo import BALANCING
from test_mbpo import weights as weights_of

INVERTED = get_task("InvertedPendulum-v5")
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "hidden_sizes": (16, 16),
    "batch_size": 32,
    "start_steps": 40,
    "updates_per_step": 2,
    "ensemble_size": 3,
    "num_elites": 2,
    "model_hidden_sizes": (16,),
    "model_every": 30,
    "model_epochs": 3,
    "num_rollouts": 50,
}
GROWING: dict[str, Any] = {"rollout_lengths": (1, 4), "rollout_steps": (40, 130), "real_ratio": 0.3}
on_every_device = pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=needs_cuda)])


def numbers(module: nn.Module) -> Tensor:
    """All weights of a module in one row, on the CPU."""
    return weights_of(module).cpu()


def batch_of(size: int, seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    obs, change = torch.randn(size, 4, generator=g), torch.randn(size, 4, generator=g)
    action = 6 * torch.rand(size, 1, generator=g) - 3
    reward, ends = torch.randn(size, generator=g), torch.rand(size, generator=g) < 0.1
    return Batch(obs, action, reward, obs + 0.1 * change, ends, torch.zeros_like(ends))


def make_sac(kind: str, **kwargs: Any) -> AcceleratedSAC:
    config = SACConfig(hidden_sizes=(16, 16), **kwargs)
    bounds = INVERTED.action_low, INVERTED.action_high
    return AcceleratedSAC(4, *bounds, config, torch.Generator().manual_seed(0), torch.device(kind))


def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is the same wherever it is drawn."""

    def draw(self: object, obs: Tensor, generator: object = None) -> Tensor:
        return torch.linspace(-1, 1, obs.shape[:-1].numel()).reshape(*obs.shape[:-1], 1).to(obs.device)

    monkeypatch.setattr("mbrl_course.sac.Actor.draw", draw)


def on(kind: str, batch: Batch) -> Batch:
    return Batch(*(column.to(kind) for column in batch))


@on_every_device
@pytest.mark.parametrize("weighted", [False, True])
def test_updates_are_those_of_sac(monkeypatch: pytest.MonkeyPatch, kind: str, weighted: bool) -> None:
    """Also those in which a graph is captured, which runs some updates on trial."""
    without_chance(monkeypatch)
    bounds = INVERTED.action_low, INVERTED.action_high
    plain = SAC(4, *bounds, SACConfig(hidden_sizes=(16, 16)), torch.Generator().manual_seed(0))
    agent = make_sac(kind)
    for step in range(6):
        batch = batch_of(32, step)
        weights = torch.linspace(0.5, 1.5, 32) if weighted else None
        for each in (plain, agent):
            each.set_learning_rate(1e-3 / (1 + step))
        expected = plain.update(batch, weights)
        got = agent.update(on(kind, batch), None if weights is None else weights.to(kind))
        for name, value in expected.items():
            assert float(got[name]) == pytest.approx(value, rel=1e-4), name
        for name in ("actor", "critics", "targets"):
            torch.testing.assert_close(
                numbers(getattr(agent, name)), numbers(getattr(plain, name)), rtol=0, atol=1e-5
            )
        torch.testing.assert_close(agent.temperature.cpu(), plain.temperature)


@on_every_device
def test_a_checkpoint_of_the_agent_goes_on_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    without_chance(monkeypatch)
    whole, second = make_sac(kind), make_sac(kind)
    second.update(on(kind, batch_of(32, 9)))  # it has a past of its own, a captured one where there is a GPU
    for step in range(6):
        if step == 3:
            torch.save(whole.state_dict(), tmp_path / "checkpoint")
            second.load_state_dict(torch.load(tmp_path / "checkpoint", map_location="cpu", weights_only=True))
        for agent in (whole, second)[: 2 if step >= 3 else 1]:
            agent.update(on(kind, batch_of(32, step)))
    for name in ("actor", "critics", "targets"):
        torch.testing.assert_close(
            numbers(getattr(second, name)), numbers(getattr(whole, name)), rtol=0, atol=1e-6
        )


@on_every_device
def test_what_was_tried_is_put_back_moments_and_all(kind: str) -> None:
    agent = make_sac(kind)
    with torch.device(kind):
        noise = torch.zeros(32, 1)
    inputs = [*on(kind, batch_of(32, 0)), noise, noise, torch.ones(32, device=kind)]
    for _ in range(2):  # before the first update there are no moments, later there are
        before = agent.state_dict()
        networks = [numbers(getattr(agent, name)) for name in ("actor", "critics", "targets")]
        agent.update_from(inputs)
        memory = [p.data_ptr() for p in agent.critics.parameters()]
        moments = agent.critic_optimizer.state[next(iter(agent.critics.parameters()))]
        agent.put_back(before)
        assert memory == [p.data_ptr() for p in agent.critics.parameters()]
        for old, name in zip(networks, ("actor", "critics", "targets"), strict=True):
            assert torch.equal(numbers(getattr(agent, name)), old)
        old_moments = before["critic_optimizer"]["state"].get(0)  # type: ignore[index]
        for key, moment in moments.items():
            expected = torch.zeros_like(moment) if old_moments is None else old_moments[key]
            assert torch.equal(moment, expected), key
        agent.update_from(inputs)


@on_every_device
def test_a_loss_that_is_not_finite_is_noticed_in_the_environment(kind: str) -> None:
    agent, batch = make_sac(kind), batch_of(32, 0)
    agent.explore(batch.obs[0])
    agent.update(on(kind, batch._replace(reward=torch.full((32,), torch.inf))))
    with pytest.raises(FloatingPointError, match="learning_rate"):
        agent.explore(batch.obs[0])


@on_every_device
def test_actions_come_back_to_where_the_states_are(kind: str) -> None:
    agent, obs = make_sac(kind), batch_of(5, 0).obs
    for explore in (True, False):
        assert agent.act(obs, explore=explore).device.type == "cpu"
        assert agent.act(obs.to(kind), explore=explore).device.type == kind


VARIANTS: list[dict[str, Any]] = [
    {},
    {"rollout_lengths": (0, 0)},
    {"learn_termination": True, "learn_reward": True, "penalty": 0.5},
    {"exploration_noise": 1.0, "rollout_mean": True, "lr_schedule": "cosine", "init_gain": 0.5},
]


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_on_the_cpu_it_is_mbpo_step_by_step(kwargs: dict[str, Any]) -> None:
    config = MBPOConfig(**{**SMALL, **GROWING, **kwargs})
    plain, agent = MBPO(INVERTED, config, 3), AcceleratedMBPO(INVERTED, config, 3, CPU)
    for steps in (60, 110):
        plain.train(steps)
        agent.train(steps)
        assert torch.equal(numbers(agent.sac.actor), numbers(plain.sac.actor))
        assert torch.equal(numbers(agent.sac.critics), numbers(plain.sac.critics))
        assert torch.equal(numbers(agent.model), numbers(plain.model))
        assert torch.equal(agent.imagined.all().obs, plain.imagined.all().obs)
        assert torch.equal(agent.obs, plain.obs)
        assert vars(agent.counters) == vars(plain.counters)
        assert agent.episode_returns == plain.episode_returns


@on_every_device
@pytest.mark.parametrize("task", [INVERTED, get_task("pendulum")], ids=lambda task: task.name)
def test_a_checkpoint_resumes(tmp_path: Path, kind: str, task: Task) -> None:
    config = MBPOConfig(**SMALL, **GROWING, learn_termination=True)
    whole, first, second = (AcceleratedMBPO(task, config, seed, torch.device(kind)) for seed in (1, 1, 2))
    devices = []

    def on_step(agent: MBPO) -> None:
        devices.append(torch.zeros(1).device.type)

    whole.train(110, on_step)
    assert set(devices) == {"cpu"} and len(devices) == 110
    first.train(85)
    torch.save(first.state_dict(), tmp_path / "checkpoint")
    second.load_state_dict(torch.load(tmp_path / "checkpoint", map_location="cpu", weights_only=True))
    second.train(110)
    atol = 0.0 if kind == "cpu" else 0.05  # sums on a GPU come in any order
    for name in ("actor", "critics", "targets"):
        got, expected = (numbers(getattr(agent.sac, name)) for agent in (second, whole))
        torch.testing.assert_close(got, expected, rtol=0, atol=atol)
    assert second.counters.real_steps == 110
    assert {column.device.type for column in (*second.real.data, *second.imagined.data)} == {kind}
    assert next(second.model.parameters()).device.type == kind


def test_all_that_an_update_and_a_rollout_make_lies_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: tensors on the device "meta" have no numbers, and can't be mixed with the CPU's."""

    def adam(self: AcceleratedSAC, parameters: list[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=self.config.learning_rate)  # not fused: that is for real ones

    monkeypatch.setattr(AcceleratedSAC, "_adam", adam)
    monkeypatch.setattr(accelerated_mbpo, "generator_on", lambda device, like: None)
    there, agent = torch.device("meta"), make_sac("meta", exploration_noise=1.0)
    task = get_task("Hopper-v5")
    model = GaussianEnsemble(12, 3, reward=task.reward, terminated=task.terminated).to(there)
    with there:
        batch = on("meta", batch_of(32, 0))
        losses = agent.update_from([*batch, torch.randn(32, 1), torch.randn(32, 1), torch.ones(32)])
        assert {loss.device for loss in losses.values()} == {there}
        agent.put_back(agent.state_dict())
        assert SAC.explore(agent, batch.obs).device == there
        nll = model.training_step(torch.randn(5, 32, 15), torch.randn(5, 32, 12))
        steps = model.step_random_elites(torch.randn(32, 12), torch.randn(32, 3))
        means = model.step_mean(torch.randn(32, 12), torch.randn(32, 3))
        assert {tensor.device for tensor in (nll, *steps, *means)} == {there}


def test_variants_that_cannot_be_on_their_device_are_refused_before_any_has_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mbrl_course.accelerator.check_device", torch.device)
    changes: dict[str, Any] = {
        "variants": ("as set:", "replay: prioritized=True device=cuda"),
        "total_steps": 10,
        "start_steps": 5,
    }
    run = Run(0)
    with pytest.raises(ValueError, match="prioritized is True, expected False on a GPU"):
        run_mbpo(MBPORunConfig(**changes), run)
    with pytest.raises(ValueError, match="prioritized is True, expected False on a GPU"):
        run_clinic_mbpo(ClinicMBPOConfig(**changes), run)
    assert run.rows == []
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda'"):
        run_mbpo(MBPORunConfig(device="cuda"), Run(0))


def test_the_command_line_trains_the_accelerated_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the GPU's place: the rows are those of the plain agent."""
    monkeypatch.setattr("mbrl_course.accelerator.check_device", lambda device: CPU)
    config = MBPORunConfig(**SMALL, task="pendulum", total_steps=90, eval_every=45, num_eval_episodes=1)
    runs = [Run(0), Run(0)]
    run_mbpo(config, runs[0])
    run_mbpo(replace(config, device="cuda"), runs[1])
    assert isinstance(make_agent(INVERTED, MBPOConfig(**SMALL), 0, "cuda"), AcceleratedMBPO)
    plain, there = ([row["eval_return"] for row in run.rows] for run in runs)
    assert plain == there and len(plain) == 2


def test_what_is_for_the_cpu_alone_is_refused_by_name() -> None:
    for config in (MBPOConfig(prioritized=True), MBPOConfig(compile=True)):
        with pytest.raises(ValueError, match=r"(prioritized|compile) is True, expected False on a GPU"):
            AcceleratedMBPO(INVERTED, config, 0, CPU)


def test_a_graph_is_captured_once_and_again_after_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which graph is replayed when, without a GPU: the graphs are stand-ins."""

    class Graph:
        def __init__(self, agent: AcceleratedSAC, inputs: list[Tensor]) -> None:
            made.append(agent)

        def __call__(self, inputs: list[Tensor]) -> dict[str, Tensor]:
            return {"critic_loss": torch.zeros(())}

    made: list[AcceleratedSAC] = []
    monkeypatch.setattr(accelerated_mbpo, "_CapturedUpdate", Graph)
    agent, batch = make_sac("cpu"), batch_of(8, 0)
    inputs = [*batch, torch.zeros(8, 1), torch.zeros(8, 1), torch.ones(8)]
    for _ in range(3):
        agent._replayed(inputs)
    assert made == [agent]
    agent.load_state_dict(agent.state_dict())
    agent._replayed(inputs)
    assert made == [agent, agent]


@needs_cuda
def test_it_learns_to_balance_on_a_gpu() -> None:
    task = get_task("cartpole-balance")
    agent = AcceleratedMBPO(task, BALANCING, 0, torch.device("cuda"))
    agent.train(900)
    assert evaluate(task, agent.act, 3, progress=False).mean() > 80
