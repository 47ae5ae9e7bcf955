"""Scoring plans on a graphics processor (GPU).

A plan in a large ensemble is products of thousands of rows, step after step: a GPU makes them in a fraction
of the time. The search itself stays on the CPU, with its generator, so the same random numbers are drawn
wherever plans are scored; only sequences go over, and scores come back. A rollout is some hundred small
operations, and to launch them takes longer than to carry them out. So they are captured once as a CUDA graph,
and each plan replays them. Meanwhile the process waits busily: its CPU seconds are about those on the wall.
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
"""Calls before a capture, in which libraries choose their algorithms and take their memory."""
MOST_CAPTURED = 16
"""Graphs that are kept for one set of weights; iCEM's shrinking populations need one for each size."""


def check_device(device: str) -> torch.device:
    """The device of this name, "cpu" or "cuda".

    Raises:
        ValueError: it is another one, or this machine or this PyTorch has none of that kind.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        cause = "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch has no CUDA"
        raise ValueError(f"device is {device!r}, but {cause} here, expected 'cpu'")
    return torch.device(device)


class AcceleratedModel:
    """A model that scores whole plans where its weights are, for planners that stay on the CPU.

    Planners need no change: `mpc.make_score_fn` asks it for its `score_fn`. A wrapper that passes on `step`
    alone works, too, but copies states to and fro at every step.

    Attributes:
        ensemble_size: that of the model.
        calls: imagined steps so far, counted as `experiments.variants.CountingModel` does.
    """

    def __init__(self, model: DynamicsModel, device: str | torch.device) -> None:
        """Moves `model` to the device; from then on its `fit` takes data from there."""
        self.device = torch.device(device)
        self.model = model.to(self.device)
        # neither Adam's moments nor rounded copies of the weights move with a module
        model.optimizer.load_state_dict(model.optimizer.state_dict())
        model.network.forget_rounded()
        self.ensemble_size, self.calls = model.ensemble_size, 0
        self._captured: dict[object, _CapturedScores] = {}
        self._captured_for: tuple[object, ...] = ()
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every member, from and to the CPU; see `mpc.StepFunction`."""
        self.calls += obs[..., 0].numel()
        next_obs, reward, terminated = self.model.step(obs.to(self.device), action.to(self.device))
        return next_obs.cpu(), reward.cpu(), terminated.cpu()

    def score_fn(self, obs: Tensor, aggregate: Aggregate | None = None) -> ScoreFunction:
        """What `mpc.make_score_fn` makes of the model and the state obs [D], computed on the device.

        What `aggregate` does is captured too: it has to be the same function in each plan, to depend on its
        argument alone, and to read no number back from the device (`.item()`).
        """

        def score(action_sequences: Tensor) -> Tensor:
            num_sequences, horizon, _ = action_sequences.shape
            self.calls += self.ensemble_size * num_sequences * horizon
            if self._stream is not None:
                scores = self._graph(self._stream, obs, action_sequences, aggregate)(obs, action_sequences)
            else:
                there = obs.to(self.device), action_sequences.to(self.device)
                scores = make_score_fn(self.model, there[0], aggregate)(there[1])
            return scores.to(action_sequences.device)

        return score

    def _graph(
        self,
        stream: torch.cuda.Stream,
        obs: Tensor,
        action_sequences: Tensor,
        aggregate: Aggregate | None,
    ) -> _CapturedScores:
        """The scores of sequences of this shape with the weights of now, captured where they are new."""
        model = self.model
        # a graph reads weights where they lie, but rounded copies of them lie elsewhere: so the version, too
        state = tuple(
            (tensor.data_ptr(), tensor._version) for tensor in (*model.parameters(), *model.buffers())
        )
        if state != self._captured_for:
            self._captured, self._captured_for = {}, state
        key = (tuple(action_sequences.shape), aggregate, model.reward, model.terminated)
        if key not in self._captured:
            if len(self._captured) == MOST_CAPTURED:
                del self._captured[next(iter(self._captured))]  # the oldest
            self._captured[key] = _CapturedScores(model, stream, obs, action_sequences, aggregate)
        return self._captured[key]


class _CapturedScores:
    """The scores of action sequences of one shape as a CUDA graph."""

    def __init__(
        self,
        model: DynamicsModel,
        stream: torch.cuda.Stream,
        obs: Tensor,
        action_sequences: Tensor,
        aggregate: Aggregate | None,
    ) -> None:
        # memory of its own, from which the graph reads
        self.obs = obs.to(stream.device, copy=True)
        self.action_sequences = action_sequences.to(stream.device, copy=True)
        score_fn = make_score_fn(model, self.obs, aggregate)
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                score_fn(self.action_sequences)
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.scores = score_fn(self.action_sequences)  # [N]

    @torch.inference_mode()
    def __call__(self, obs: Tensor, action_sequences: Tensor) -> Tensor:
        """Scores [N] of the sequences [N, H, A] from the state obs [D], on the CPU."""
        self.obs.copy_(obs)
        self.action_sequences.copy_(action_sequences)
        self.graph.replay()
        return self.scores.cpu()
