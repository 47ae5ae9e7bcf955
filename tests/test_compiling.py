"""Compiled agents learn what the others learn; where nothing can be compiled, one message says so."""

from __future__ import annotations

import warnings

import pytest
import torch

from mbrl_course import compiling
from mbrl_course.buffers import Batch
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect_random
from mbrl_course.sac import SAC, SACConfig


def updated_agent(compile: bool, gamma: float = 0.99, weighted: bool = False) -> SAC:
    """An agent after four updates on a random batch; all from the same seed."""
    generator = torch.Generator().manual_seed(0)
    config = SACConfig(hidden_sizes=(16,), learning_rate=1e-3, gamma=gamma, compile=compile)
    agent = SAC(3, -torch.ones(2), torch.ones(2), config, generator)
    obs, next_obs = torch.randn(2, 32, 3, generator=generator)
    action, reward = torch.rand(32, 2, generator=generator), torch.randn(32, generator=generator)
    flags = torch.zeros(32, dtype=torch.bool)
    weights = torch.rand(32, generator=generator) if weighted else None
    for _ in range(4):
        agent.update(Batch(obs, action, reward, next_obs, flags, flags), weights)
    assert (agent._compiled is not None) == (compile and not compiling.why_not())
    return agent


def assert_same_weights(first: SAC, second: SAC) -> None:
    for name in ("actor", "critics", "targets"):
        ours, theirs = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(first.temperature, second.temperature, rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
def test_compiled_agents_learn_the_same() -> None:
    if reason := compiling.why_not():
        pytest.skip(f"torch.compile does not work here: {reason}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile=True changes nothing")
        for settings in ({}, {"weighted": True}, {"gamma": 0.5}):  # one process, several agents
            ours, theirs = (updated_agent(compile, **settings) for compile in (True, False))
            assert_same_weights(ours, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_ensembles_learn_the_same() -> None:
    if reason := compiling.why_not():
        pytest.skip(f"torch.compile does not work here: {reason}")
    losses, states = [], []
    for compile in (True, False):
        generator = torch.Generator().manual_seed(0)
        config = EnsembleConfig(hidden_sizes=(16,), batch_size=32, learn_reward=True, compile=compile)
        ensemble = GaussianEnsemble(3, 2, config, generator=generator)
        data, _ = collect_random(get_task("pendulum"), 100, generator)
        data = data._replace(action=data.action.expand(-1, 2))
        losses.append(torch.tensor(ensemble.fit(data, max_epochs=3, generator=generator).train_losses))
        states.append(ensemble.state_dict())
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(*states, rtol=1e-2, atol=1e-4)


def test_without_a_compiler_a_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no C++ compiler was found\nand more lines")

    compiling.why_not.cache_clear()
    monkeypatch.setattr(torch, "compile", fails)
    try:
        with pytest.warns(UserWarning, match=r"RuntimeError: no C\+\+ compiler was found\)$"):
            agent = updated_agent(compile=True)
    finally:
        compiling.why_not.cache_clear()
    assert_same_weights(agent, updated_agent(compile=False))
