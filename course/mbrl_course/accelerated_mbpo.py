"""MBPO on a graphics processor (GPU), by the same code as on the CPU.

With the paper's settings MBPO is millions of updates of networks that a GPU evaluates in microseconds. So
everything but the environment goes there: buffers, model, rollouts and agent. The code stays that of
`mbrl_course.mbpo`: it makes its tensors on PyTorch's default device, which is the GPU meanwhile. An update of
SAC alone is done in another way. It is some two hundred small operations, and to launch them takes longer
than to carry them out; so they are captured once as a CUDA graph, and each update replays them.

Random numbers are drawn on the device, so a run on a GPU is not the run of the same seed on a CPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mbrl_course.accelerator import WARM_UPS
from mbrl_course.buffers import Batch
from mbrl_course.envs.resumable import ResumableEnv
from mbrl_course.envs.task import Task, observed
from mbrl_course.mbpo import MBPO, MBPOConfig
from mbrl_course.sac import SAC, SACConfig

CPU = torch.device("cpu")


def generator_on(device: torch.device, like: torch.Generator) -> torch.Generator:
    """A generator of the device with the seed of `like`; `like` itself where that is one of the device."""
    if like.device.type == device.type:
        return like
    return torch.Generator(device).manual_seed(like.initial_seed())


def check_accelerated(config: SACConfig) -> None:
    """Refuses settings that work on the CPU alone, with the field's name.

    Raises:
        ValueError: `compile` or `prioritized` is set.
    """
    if config.compile:
        raise ValueError("compile is True, expected False on a GPU, where updates are captured instead")
    if getattr(config, "prioritized", False):
        raise ValueError("prioritized is True, expected False on a GPU: its sum tree is for the CPU")


class AcceleratedSAC(SAC):
    """SAC on a device, with the same first weights as on the CPU, and the same updates but for rounding.

    An update returns its losses as tensors: to read them is to wait for the device. That one is not finite
    any more is noticed at the next call of `explore`.
    """

    def __init__(
        self,
        obs_dim: int,
        low: Tensor,
        high: Tensor,
        config: SACConfig,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """An untrained agent; the arguments are those of `SAC`, and the device to move to.

        Raises:
            ValueError: see `check_accelerated`.
        """
        check_accelerated(config)
        super().__init__(obs_dim, low, high, config, generator)
        self.device = device
        self.generator = generator_on(device, generator)
        self.low, self.high = self.low.to(device), self.high.to(device)
        for networks in (self.actor, self.critics, self.targets):
            networks.to(device)
        if device.type != "cpu":
            self.log_temperature = self.log_temperature.detach().to(device).requires_grad_()
            self.actor_optimizer = self._adam([*self.actor.parameters(), self.log_temperature])
            self.critic_optimizer = self._adam([*self.critics.parameters()])
        self._captured: _CapturedUpdate | None = None
        self._critic_loss: Tensor | None = None

    def _adam(self, parameters: list[Tensor]) -> torch.optim.Adam:
        """Adam as a graph can hold it: with its learning rate in a tensor, where it may change."""
        rate = torch.tensor(self.config.learning_rate, device=self.device)
        return torch.optim.Adam(parameters, lr=rate, fused=True, capturable=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """From now on both Adams use this learning rate."""
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            (group,) = optimizer.param_groups
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def act(self, obs: Tensor, *, explore: bool = True) -> Tensor:
        """Actions as `SAC.act` gives them, for states obs [..., D] wherever they lie: [..., A] there."""
        with self.device:
            return super().act(obs.to(self.device), explore=explore).to(obs.device)

    def explore(self, obs: Tensor) -> Tensor:
        """Actions to collect data with, see `SAC.explore`.

        Raises:
            FloatingPointError: the critics' loss was not finite in the last update.
        """
        action = super().explore(obs)
        if self._critic_loss is not None and not math.isfinite(loss := self._critic_loss.item()):
            raise FloatingPointError(f"the critics' loss is {loss}: is learning_rate small enough?")
        return action

    def update(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Any]:
        """One update of critics, actor, temperature and target critics, see `SAC.update`.

        Args:
            batch: B transitions, the same number each time.
            weights: of the rows, [B]; all 1 by default.

        Returns:
            The losses and the temperature by name, as scalars on the device, which the next update changes.
        """
        with self.device:
            noises = [self.actor.draw(obs, self.generator) for obs in (batch.next_obs, batch.obs)]
            if weights is None:
                weights = torch.ones(len(batch.obs))  # one graph for both
        inputs = [*batch, *noises, weights]
        losses = self._replayed(inputs) if self.device.type == "cuda" else self.update_from(inputs)
        self._critic_loss = losses["critic_loss"]
        return losses

    def update_from(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """`SAC.gradient_steps`, its arguments in one list: the columns of a batch, both noises, weights.

        There is nothing in it that would wait for the device.
        """
        return self.gradient_steps(Batch(*inputs[:6]), *inputs[6:])

    def _replayed(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        if self._captured is None:
            self._captured = _CapturedUpdate(self, inputs)
        return self._captured(inputs)

    def load_state_dict(self, state: dict) -> None:
        """Continues from what `state_dict` returned."""
        super().load_state_dict(state)
        self._captured = None  # the optimizers' tensors lie elsewhere now
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            (group,) = optimizer.param_groups
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(self.device)

    @torch.no_grad()
    def put_back(self, state: dict) -> None:
        """As `load_state_dict`, but into the same memory, and the random state stays as it is.

        Moments that an optimizer had not made yet become what it begins with, zeros.
        """
        for name in ("actor", "critics", "targets"):
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.copy_(state["log_temperature"])
        for name in ("actor_optimizer", "critic_optimizer"):
            optimizer, old = getattr(self, name), state[name]["state"]
            for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
                for key, moment in optimizer.state[parameter].items():
                    if number in old:
                        moment.copy_(old[number][key])
                    else:
                        moment.zero_()


class _CapturedUpdate:
    """An update of SAC as a CUDA graph."""

    def __init__(self, agent: AcceleratedSAC, inputs: list[Tensor]) -> None:
        """Captures an update with inputs of these shapes; the agent is left as it was."""
        self.inputs = [column.clone() for column in inputs]  # memory of its own, from which the graph reads
        before = agent.state_dict()
        stream = torch.cuda.Stream(agent.device)
        stream.wait_stream(torch.cuda.current_stream(agent.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                agent.update_from(self.inputs)
            agent.put_back(before)
        torch.cuda.current_stream(agent.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.losses = agent.update_from(self.inputs)

    def __call__(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """The update with these inputs."""
        for own, column in zip(self.inputs, inputs, strict=True):
            own.copy_(column)
        self.graph.replay()
        return self.losses


class AcceleratedMBPO(MBPO):
    """MBPO with everything on a device but the environment; see `MBPO`."""

    def __init__(self, task: Task, config: MBPOConfig, seed: int, device: torch.device) -> None:
        """An untrained agent with the weights that `MBPO` has with this seed.

        Raises:
            ValueError: see `check_accelerated`.
        """
        check_accelerated(config)
        super().__init__(task, config, seed)
        self.device = device
        with device:
            self.task = dataclasses.replace(
                task, action_low=task.action_low.to(device), action_high=task.action_high.to(device)
            )
        generator = torch.Generator().manual_seed(int(seed))
        self.sac = AcceleratedSAC(
            task.obs_dim, task.action_low, task.action_high, self.config, generator, device
        )
        assert self.sac.generator is not None
        self.generator = self.sac.generator
        self.model_generator = generator_on(device, self.model_generator)
        self.model.to(device)
        self.model.generator = self.model_generator
        if self.learned_termination is not None:
            self.learned_termination.to(device)
        for buffer in (self.real, self.imagined):
            buffer.data = Batch(*(column.to(device) for column in buffer.data))
        self.env.close()
        self.env = _EnvOnCPU(task.make_env())
        self.obs = observed(self.env.reset(seed=int(seed))[0]).to(device)

    def train(
        self, total_steps: int, on_step: Callable[[MBPO], None] | None = None, progress: bool = False
    ) -> None:
        """See `MBPO.train`; `on_step` is called with the CPU as the default device."""

        def after_step(agent: MBPO) -> None:
            if on_step is not None:
                with CPU:
                    on_step(agent)

        with self.device:
            super().train(total_steps, after_step, progress)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned, on a device of the same kind."""
        with self.device:
            super().load_state_dict(state)
        self.obs = self.obs.to(self.device)


class _EnvOnCPU(ResumableEnv):
    """An environment in which the CPU is the default device, as some compute in torch."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        with CPU:
            return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with CPU:
            return super().step(action)

    def state_dict(self) -> dict[str, Any]:
        with CPU:
            return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with CPU:
            super().load_state_dict(state)
