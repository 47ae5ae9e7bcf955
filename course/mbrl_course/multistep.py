"""Week 7, a bonus: predicting several steps ahead at once, instead of one step after the other.

A one-step model that is asked for s_k feeds on its own predictions, and its errors compound. A multi-step
model s_k = f_k(s_0, a_0 .. a_{k-1}) makes one error only, but has to learn a harder function, and one for
each k (Asadi et al., 2019, "Combating the compounding-error problem with a multi-step model").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbrl_course.dynamics import Normalizer, training_step
from mbrl_course.networks import EnsembleMLP, check_widths
from mbrl_course.validation import need_positive, need_whole


def mask_later_actions(actions: Tensor) -> Tensor:
    """For each k = 1 .. K the actions a_0 .. a_{k-1}, with zeros in place of those that come later.

    Args:
        actions: [N, K, A].

    Returns:
        [K, N, K * A]; row k - 1 is what s_k depends on.
    """
    steps = actions.shape[1]
    known = torch.tril(torch.ones(steps, steps))  # [K, K], row k - 1 has k ones
    return (known[:, None, :, None] * actions).flatten(2)  # [K, N, K * A]


@dataclass(frozen=True)
class MultiStepConfig:
    """How a multi-step model looks and learns.

    Attributes:
        num_steps: K, the longest prediction.
        hidden_sizes: of each of the K networks.
        learning_rate: of Adam.
        batch_size: trajectories per gradient step.
    """

    num_steps: int = 10
    hidden_sizes: tuple[int, ...] = (200, 200)
    learning_rate: float = 1e-3
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_widths(self.hidden_sizes)
        need_whole(self, "num_steps", "batch_size")
        need_positive(self, "learning_rate")


class MultiStepModel(nn.Module):
    """K networks side by side; the k-th predicts s_k - s_0 from s_0 and the first k actions."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: MultiStepConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """An untrained model for observations [D] and actions [A]."""
        super().__init__()
        self.config = config = config or MultiStepConfig()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        steps = config.num_steps
        self.network = EnsembleMLP(
            steps, obs_dim + steps * action_dim, obs_dim, config.hidden_sizes, generator=generator
        )
        self.obs_normalizer, self.action_normalizer = Normalizer(obs_dim), Normalizer(action_dim)
        self.change_normalizer = Normalizer(steps * obs_dim)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

    def _check(self, obs: Tensor, actions: Tensor) -> None:
        steps = self.config.num_steps
        for name, x, width in (("obs", obs, self.obs_dim), ("actions", actions, self.action_dim)):
            if x.shape[-1:] != (width,):
                raise ValueError(f"{name} has shape {list(x.shape)}, expected [..., {width}]")
        if actions.dim() != 3 or actions.shape[1] != steps or len(actions) != len(obs):
            expected = f"[{len(obs)}, {steps}, A]"
            raise ValueError(f"actions has shape {list(actions.shape)}, expected {expected}")

    def _inputs(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Normalised inputs of the K networks, [K, N, D + K * A]."""
        known = mask_later_actions(self.action_normalizer.normalize(actions))
        state = self.obs_normalizer.normalize(obs).expand(self.config.num_steps, -1, -1)  # [K, N, D]
        return torch.cat([state, known], dim=-1)

    def fit(
        self,
        obs: Tensor,
        actions: Tensor,
        num_updates: int,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> list[float]:
        """Fits the networks to stretches of real trajectories.

        Args:
            obs: s_0 .. s_K, [N, K + 1, D].
            actions: a_0 .. a_{K-1}, [N, K, A].
            num_updates: gradient steps.
            generator: source of randomness of the mini-batches.
            progress: show a progress bar.

        Returns:
            The loss of each step (normalised units, averaged over k).

        Raises:
            ValueError: there are no stretches, or they have another length than `num_steps`, or hold NaN or
                infinity.
            FloatingPointError: the loss is not finite any more.
        """
        self._check(obs[:, 0], actions)
        if len(obs) == 0:
            raise ValueError("obs holds no stretches, expected at least one")
        if not bool(obs.isfinite().all() and actions.isfinite().all()):
            raise ValueError("obs or actions hold NaN or infinity, expected finite numbers")
        if obs.shape[1] != self.config.num_steps + 1:
            expected = f"[{len(obs)}, {self.config.num_steps + 1}, D]"
            raise ValueError(f"obs has shape {list(obs.shape)}, expected {expected}")
        changes = obs[:, 1:] - obs[:, :1]  # [N, K, D]
        self.obs_normalizer.fit(obs.flatten(0, 1))
        self.action_normalizer.fit(actions.flatten(0, 1))
        self.change_normalizer.fit(changes.flatten(1))
        targets = self.change_normalizer.normalize(changes.flatten(1)).view_as(changes)  # [N, K, D]
        losses = []
        for _ in tqdm(range(num_updates), "gradient steps", disable=not progress, leave=False):
            rows = torch.randint(len(obs), (self.config.batch_size,), generator=generator)  # [B]
            inputs = self._inputs(obs[rows, 0], actions[rows])  # [K, B, D + K * A]
            loss = training_step(self.network, self.optimizer, inputs, targets[rows].transpose(0, 1))
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}: is learning_rate small enough?")
            losses.append(loss)
        return losses

    @torch.no_grad()
    def predict(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The states s_1 .. s_K that actions lead to.

        Args:
            obs: s_0, [N, D].
            actions: a_0 .. a_{K-1}, [N, K, A].

        Returns:
            [N, K, D].

        Raises:
            ValueError: another number of actions than `num_steps`.
        """
        self._check(obs, actions)
        changes = self.network(self._inputs(obs, actions)).transpose(0, 1)  # [N, K, D]
        changes = self.change_normalizer.denormalize(changes.flatten(1)).view_as(changes)
        return obs.unsqueeze(1) + changes


def multi_step_errors(model: MultiStepModel, obs: Tensor, actions: Tensor) -> Tensor:
    """E_1 .. E_K of a multi-step model, [K], to be set beside `mbrl_course.dynamics.k_step_errors`.

    Args:
        model: fitted.
        obs: real trajectories, [B, K + 1, D].
        actions: [B, K, A].
    """
    return (model.predict(obs[:, 0], actions) - obs[:, 1:]).square().mean(dim=(0, 2))
