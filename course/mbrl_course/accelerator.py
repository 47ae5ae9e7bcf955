"""Scoring plans on a graphics processor (GPU).

A plan in a large ensemble is products of thousands of rows, step after step: a GPU makes them in a fraction
of the time. The search itself stays on the CPU, with its generator, so the same sequences are drawn wherever
they are scored; only sequences go over, and scores come back. A rollout is some hundred small operations, and
to launch them takes longer than to carry them out. So they are recorded once as a CUDA graph, and each plan
replays them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_course.dynamics import DynamicsModel
from mbrl_course.mpc import ScoreFunction, make_score_fn

Aggregate = Callable[[Tensor], Tensor]
"""Turns the returns in each member [E, N] into one score [N]."""
WARM_UPS = 3
"""Calls before a recording, in which libraries choose their algorithms and take their memory."""


def check_device(device: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: this machine, or this PyTorch, has none of that kind.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        cause = (
            "PyTorch finds no such graphics processor" if torch.version.cuda else "this PyTorch has no CUDA"
        )
        raise ValueError(f"device is {device!r}, but {cause} here, expected 'cpu'")
    return torch.device(device)


class AcceleratedModel:
    """A model that scores whole plans where its weights are, for planners that stay on the CPU.

    Planners need no change: `mpc.make_score_fn` asks it for its `score_fn`. On the CPU, too, scores are those
    of the model itself.

    Attributes:
        ensemble_size: that of the model.
        calls: imagined steps so far, over all members and sequences.
    """

    def __init__(self, model: DynamicsModel, device: str | torch.device) -> None:
        """Moves `model` to the device; from then on its `fit` takes data from there."""
        self.device = torch.device(device)
        self.model = model.to(self.device)
        model.optimizer.load_state_dict(model.optimizer.state_dict())  # its state follows its parameters
        self.ensemble_size, self.calls = model.ensemble_size, 0
        self._recordings: dict[object, _Recording] = {}
        self._recorded_for: tuple[object, ...] = ()

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every member, from and to the CPU; see `mpc.StepFunction`."""
        self.calls += obs[..., 0].numel()
        next_obs, reward, terminated = self.model.step(obs.to(self.device), action.to(self.device))
        return next_obs.cpu(), reward.cpu(), terminated.cpu()

    def score_fn(self, obs: Tensor, aggregate: Aggregate | None = None) -> ScoreFunction:
        """What `mpc.make_score_fn` makes of the model and the state obs [D], computed on the device."""

        def score(action_sequences: Tensor) -> Tensor:
            num_sequences, horizon, _ = action_sequences.shape
            self.calls += self.ensemble_size * num_sequences * horizon
            if self.device.type != "cuda":
                there = obs.to(self.device), action_sequences.to(self.device)
                return make_score_fn(self.model, there[0], aggregate)(there[1]).to(action_sequences.device)
            return self._recording(obs, action_sequences, aggregate)(obs, action_sequences)

        return score

    def _recording(self, obs: Tensor, action_sequences: Tensor, aggregate: Aggregate | None) -> _Recording:
        """The recording for sequences of this shape with the weights of now: a fit makes all others stale."""
        state = (*self.model.parameters(), *self.model.buffers())
        now = tuple((tensor.data_ptr(), tensor._version) for tensor in state)
        if now != self._recorded_for:
            self._recordings, self._recorded_for = {}, now
        kind = (tuple(action_sequences.shape), aggregate)
        if kind not in self._recordings:
            self._recordings[kind] = _Recording(self.model, self.device, obs, action_sequences, aggregate)
        return self._recordings[kind]


class _Recording:
    """The scores of action sequences of one shape, recorded as a CUDA graph."""

    def __init__(
        self,
        model: DynamicsModel,
        device: torch.device,
        obs: Tensor,
        action_sequences: Tensor,
        aggregate: Aggregate | None,
    ) -> None:
        self.obs, self.action_sequences = obs.to(device), action_sequences.to(device)
        score_fn = make_score_fn(model, self.obs, aggregate)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                score_fn(self.action_sequences)
        torch.cuda.current_stream(device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.scores = score_fn(self.action_sequences)  # [N]

    def __call__(self, obs: Tensor, action_sequences: Tensor) -> Tensor:
        """Scores [N] of the sequences [N, H, A] from the state obs [D], on the CPU."""
        self.obs.copy_(obs)
        self.action_sequences.copy_(action_sequences)
        self.graph.replay()
        return self.scores.cpu()
