"""How fast do models, agents and environments run, beside a plain way of doing the same?

    python tests/benchmarks/bench_training.py --out training.json

Each line is a ratio to something that is measured in turn with it, in the same process:

- gradient steps of a Gaussian ensemble (7 members, 4 x 200, batch 256, half-cheetah sizes; and, as in the
  presets for laptops, 5 members, 2 x 64, batch 32) against a loop over members, each with a network and an
  optimiser of its own;
- SAC updates (2 x 256, batch 256, half-cheetah sizes; and, for laptops, 2 x 64, batch 128) against an eager
  update as it is found in tutorials;
- with `--compile` both of them compiled, too, against the same;
- steps of the course's tasks against the Gymnasium environments below them, or that come closest.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

from mbrl_course.buffers import Batch
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.experiments.runner import machine
from mbrl_course.sac import SAC, SACConfig

OBS_DIM, ACTION_DIM, BATCH = 17, 6, 256  # Gymnasium's half-cheetah
BLOCK = 0.05
"""Seconds that a function is called in succession."""
ENV_PAIRS = {
    "cartpole": "CartPole-v1",
    "pendulum": "Pendulum-v1",
    "cartpole-swingup": "CartPole-v1",
    "cheetah": "HalfCheetah-v5",
}


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        what: what is done.
        per_second: how often in a second, at the median.
        plain: the yardstick.
        plain_per_second: how often in a second, at the median.
        ratio: `per_second` over `plain_per_second`.
    """

    what: str
    per_second: float
    plain: str
    plain_per_second: float
    ratio: float


Job = tuple[str, Callable[[], object], str, Callable[[], object], int]
"""What is measured, the function, the yardstick, its function, and how many units a call of either is."""


def random_batch(size: int, generator: torch.Generator) -> Batch:
    """A mini-batch of random transitions."""
    obs, next_obs = torch.randn(2, size, OBS_DIM, generator=generator)
    action = torch.rand(size, ACTION_DIM, generator=generator) * 2 - 1
    flags = torch.zeros(size, dtype=torch.bool)
    return Batch(obs, action, torch.randn(size, generator=generator), next_obs, flags, flags)


def mlp(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """A plain network."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def ensemble_job(hidden: tuple[int, ...], members: int, batch: int, compile: bool = False) -> Job:
    """One gradient step of all members, on mini-batches that are there already."""
    generator = torch.Generator().manual_seed(0)
    config = EnsembleConfig(
        ensemble_size=members,
        num_elites=1,
        hidden_sizes=hidden,
        batch_size=batch,
        learn_reward=True,
        compile=compile,
    )
    model = GaussianEnsemble(OBS_DIM, ACTION_DIM, config, generator=generator)
    inputs = torch.randn(members, batch, OBS_DIM + ACTION_DIM, generator=generator)
    targets = torch.randn(members, batch, OBS_DIM + 1, generator=generator)
    outputs = OBS_DIM + 1
    networks = [mlp((OBS_DIM + ACTION_DIM, *hidden, 2 * outputs), nn.SiLU) for _ in range(members)]
    bounds = [[nn.Parameter(torch.full((outputs,), v)) for v in (-10.0, 0.5)] for _ in range(members)]
    optimizers = [
        torch.optim.AdamW([*network.parameters(), *bound], lr=1e-3, weight_decay=5e-5)
        for network, bound in zip(networks, bounds, strict=True)
    ]

    def plain() -> list[Tensor]:
        losses = []
        for member, (network, (low, high), optimizer) in enumerate(
            zip(networks, bounds, optimizers, strict=True)
        ):
            mean, log_var = network(inputs[member]).chunk(2, dim=-1)
            log_var = high - softplus(high - log_var)
            log_var = low + softplus(log_var - low)
            error = (mean - targets[member]).square()
            nll = 0.5 * (error * torch.exp(-log_var) + log_var).mean()
            optimizer.zero_grad()
            (nll + 0.01 * (high - low).sum()).backward()
            optimizer.step()
            losses.append(nll.detach())
        return losses

    what = f"ensemble {members} x ({len(hidden)} x {hidden[0]}), batch {batch}{', compiled' * compile}"
    return what, lambda: model.training_step(inputs, targets), "a loop over members", plain, 1


def sac_job(hidden: tuple[int, ...], size: int, compile: bool = False) -> Job:
    """One update of critics, actor, temperature and targets."""
    generator = torch.Generator().manual_seed(0)
    batch = random_batch(size, generator)
    ones = torch.ones(ACTION_DIM)
    agent = SAC(OBS_DIM, -ones, ones, SACConfig(hidden_sizes=hidden, compile=compile), generator)
    name = f"SAC {len(hidden)} x {hidden[0]}, batch {size}{', compiled' * compile}"
    return name, lambda: agent.update(batch), "an eager update", plain_sac(hidden, batch), 1


def plain_sac(hidden: tuple[int, ...], batch: Batch) -> Callable[[], object]:
    """SAC's update written down without a thought of speed."""
    actor = mlp((OBS_DIM, *hidden, 2 * ACTION_DIM), nn.ReLU)
    critics = [mlp((OBS_DIM + ACTION_DIM, *hidden, 1), nn.ReLU) for _ in range(2)]
    targets = [mlp((OBS_DIM + ACTION_DIM, *hidden, 1), nn.ReLU) for _ in range(2)]
    log_alpha = torch.zeros(1, requires_grad=True)
    critic_parameters = [p for critic in critics for p in critic.parameters()]
    optimizers = [torch.optim.Adam(p, lr=3e-4) for p in (actor.parameters(), critic_parameters, [log_alpha])]

    def sample(obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor(obs).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, (-5 + 3.5 * (torch.tanh(log_std) + 1)).exp())
        u = normal.rsample()
        slope = 2 * (math.log(2) - u - softplus(-2 * u))
        return torch.tanh(u), (normal.log_prob(u) - slope).sum(-1, keepdim=True)

    def smaller(networks: Sequence[nn.Module], obs: Tensor, action: Tensor) -> Tensor:
        pair = torch.cat([obs, action], dim=-1)
        return torch.min(networks[0](pair), networks[1](pair))

    def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def update() -> tuple[float, ...]:
        reward, ended = batch.reward.unsqueeze(-1), batch.terminated.float().unsqueeze(-1)
        with torch.no_grad():
            action, log_prob = sample(batch.next_obs)
            value = smaller(targets, batch.next_obs, action) - log_alpha.exp() * log_prob
            target = reward + 0.99 * (1 - ended) * value
        pair = torch.cat([batch.obs, batch.action], dim=-1)
        critic_loss = sum((critic(pair) - target).square().mean() for critic in critics)
        assert isinstance(critic_loss, Tensor)
        descend(critic_loss, optimizers[1])
        action, log_prob = sample(batch.obs)
        actor_loss = (log_alpha.exp().detach() * log_prob - smaller(critics, batch.obs, action)).mean()
        descend(actor_loss, optimizers[0])
        alpha_loss = -(log_alpha * (log_prob.detach() - ACTION_DIM)).mean()
        descend(alpha_loss, optimizers[2])
        with torch.no_grad():
            for network, slow in zip(critics, targets, strict=True):
                for p, q in zip(network.parameters(), slow.parameters(), strict=True):
                    q.mul_(1 - 0.005).add_(0.005 * p)
        return critic_loss.item(), actor_loss.item(), alpha_loss.item()

    return update


def env_job(task_name: str, plain_id: str, steps: int) -> Job:
    """A number of random steps in a task's environment, and in Gymnasium's."""

    def stepper(env: gymnasium.Env) -> Callable[[], object]:
        env.reset(seed=0)
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(steps)]

        def run() -> None:
            for action in actions:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

        return run

    ours, plain = get_task(task_name).make_env(), gymnasium.make(plain_id)
    return f"{task_name}, environment steps", stepper(ours), plain_id, stepper(plain), steps


def jobs(tiny: bool = False, compile: bool = False) -> list[Job]:
    """All that is measured; with `compile` the compiled gradients, too."""
    ensembles = [((8,), 2, 8)] if tiny else [((200,) * 4, 7, BATCH), ((64, 64), 5, 32)]
    agents = [((8,), 8)] if tiny else [((256, 256), BATCH), ((64, 64), 128)]
    how = (False, True) if compile else (False,)
    return [
        *(ensemble_job(*sizes, compiled) for sizes in ensembles for compiled in how),
        *(sac_job(hidden, size, compiled) for hidden, size in agents for compiled in how),
        *(env_job(ours, plain, 5 if tiny else 500) for ours, plain in ENV_PAIRS.items()),
    ]


def _seconds(function: Callable[[], object], count: int) -> float:
    """What so many calls take."""
    start = time.perf_counter()
    for _ in range(count):
        function()
    return time.perf_counter() - start


def measure(todo: Sequence[Job], repeats: int, progress: bool = True) -> list[Row]:
    """Times every job and its yardstick `repeats` times, in turn, after two rounds that aren't timed.

    Each time it is called again and again for about `BLOCK` seconds, as in training: what is called in turn
    with something else finds the processor's caches full of that.
    """
    rows = []
    for what, function, plain_name, plain, units in tqdm(todo, disable=not progress, leave=False):
        seconds: tuple[list[float], list[float]] = ([], [])
        function(), plain()  # what is compiled is compiled now
        calls = [max(1, round(BLOCK / _seconds(run, 1))) for run in (function, plain)]
        for _ in range(repeats):
            for run, times, count in zip((function, plain), seconds, calls, strict=True):
                times.append(_seconds(run, count) / count)
        ours, theirs = (units / statistics.median(times) for times in seconds)
        rows.append(Row(what, ours, plain_name, theirs, ours / theirs))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes it where `--out` says."""
    parser = argparse.ArgumentParser(description="Training and stepping, as ratios to a plain way.")
    parser.add_argument("--out", type=Path, help="write the numbers to this file, .json")
    parser.add_argument("--repeats", type=int, default=30, help="how often each is timed (30)")
    parser.add_argument("--threads", type=int, help="threads of torch; by default as many as it takes itself")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: does it run at all?")
    parser.add_argument("--compile", action="store_true", help="measure compiled gradients, too")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}, expected at least 1")
    before = torch.get_num_threads()
    try:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        rows = measure(jobs(options.tiny, options.compile), options.repeats)
        about = machine()
    finally:
        torch.set_num_threads(before)
    print(f"{about['machine']}, {about['threads']} threads")
    print(f"{'what':<44}{'per s':>10}   {'plain':<22}{'per s':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row.what:<44}{row.per_second:>10.0f}   {row.plain:<22}{row.plain_per_second:>10.0f}"
            f"{row.ratio:>8.2f}"
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {**about, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
