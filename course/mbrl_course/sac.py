"""Week 7: soft actor-critic, the model-free agent that MBPO starts from.

SAC (Haarnoja et al., 2018, "Soft actor-critic: off-policy maximum entropy deep reinforcement learning with a
stochastic actor", and 2019, "Soft actor-critic algorithms and applications") maximises reward plus the
policy's entropy. It learns from a replay buffer, so it can also learn from transitions that a model made up.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mbrl_course.buffers import Batch
from mbrl_course.envs.task import action_bounds
from mbrl_course.networks import check_widths, relu_mlp, xavier_weights
from mbrl_course.validation import need_at_least, need_in_unit, need_positive, need_whole

if TYPE_CHECKING:
    from mbrl_course.compiling import CompiledGradient

ActorFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps obs [..., D] to mean and log standard deviation of actions before the squashing, each [..., A]."""
CriticsFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps obs [B, D] and actions in (-1, 1)^A, [B, A], to the values of both critics, [2, B]."""


def squash(pre_tanh: Tensor, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """The action tanh(u) of a Gaussian sample u, and its log-probability.

    Squashing changes the density: log pi(a) = log N(u; mean, std) - sum_i log(1 - tanh(u_i)^2) (Haarnoja et
    al., 2018, Eq. 21), where log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) does not underflow.

    Args:
        pre_tanh: u, [..., A].
        mean: [..., A].
        log_std: [..., A].

    Returns:
        Actions in (-1, 1), [..., A], and their log-probabilities, [...].
    """
    z = (pre_tanh - mean) * torch.exp(-log_std)
    log_normal = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)  # [..., A]
    log_slope = 2 * (math.log(2) - pre_tanh - softplus(-2 * pre_tanh))  # [..., A]
    return torch.tanh(pre_tanh), (log_normal - log_slope).sum(dim=-1)


def critic_target(
    reward: Tensor,
    terminated: Tensor,
    next_q: Tensor,
    next_log_prob: Tensor,
    temperature: Tensor | float,
    gamma: float,
) -> Tensor:
    """The critics' target: r + gamma (1 - terminated) (min_i Q_i(s', a') - alpha log pi(a' | s')).

    Args:
        reward: [B].
        terminated: bool [B].
        next_q: both target critics' values of the next states and fresh actions, [2, B].
        next_log_prob: of these actions, [B].
        temperature: alpha.
        gamma: discount.

    Returns:
        [B] (Haarnoja et al., 2018, Eq. 2-3 and 8, with the smaller of two critics).
    """
    soft_value = next_q.amin(dim=0) - temperature * next_log_prob  # [B]
    terminated = terminated.bool()  # of 0 and 1, ~ would make -1 and -2
    return reward + gamma * ~terminated * soft_value


def critic_loss(q: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each critic, summed over the two (Haarnoja et al., 2018, Eq. 7).

    Args:
        q: both critics' values of the actions in the batch, [2, B].
        target: the same for both, [B]; it is a constant here.
        weights: of the rows, [B] (prioritized replay); all 1 by default.

    Returns:
        A scalar.
    """
    squared_error = (q - target).square()  # [2, B]
    if weights is not None:
        squared_error = squared_error * weights
    return squared_error.mean(dim=1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """The mean of alpha log pi(a | s) - min_i Q_i(s, a) (Haarnoja et al., 2018, Eq. 12).

    Args:
        q: both critics' values of the policy's own, fresh actions, [2, B].
        log_prob: of these actions, [B].
        temperature: alpha.

    Returns:
        A scalar.
    """
    return (temperature * log_prob - q.amin(dim=0)).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """E[-log alpha (log pi(a | s) + target entropy)] (Haarnoja et al., 2019, Eq. 18, for log alpha).

    Args:
        log_temperature: log alpha, a scalar.
        log_prob: of fresh actions, [B]; no gradient flows into it.
        target_entropy: of the policy, in nats; -A as a rule.

    Returns:
        A scalar.
    """
    return -(log_temperature * (log_prob.detach() + target_entropy)).mean()


@dataclass(frozen=True)
class SACConfig:
    """SAC's settings.

    Attributes:
        hidden_sizes: of actor and critics.
        learning_rate: of both Adams, that of the critics, and that of actor and temperature.
        batch_size: transitions per update.
        gamma: discount.
        tau: share of the critics that goes into their targets with each update.
        initial_temperature: alpha at the start.
        target_entropy: of the policy, in nats per action dimension.
        init_gain: draws the first weights with `networks.xavier_weights` and this gain; None leaves them.
        exploration_noise: c, see `SAC.explore`; 0 adds nothing.
        compile: have the gradients of both losses compiled, see `mbrl_course.compiling`.
    """

    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    gamma: float = 0.99
    tau: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float = -1.0
    init_gain: float | None = None
    exploration_noise: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_widths(self.hidden_sizes)
        need_whole(self, "batch_size")
        need_in_unit(self, "gamma", "tau")
        if not math.isfinite(self.target_entropy):
            raise ValueError(f"target_entropy is {self.target_entropy}, expected a finite number")
        need_positive(self, "learning_rate", "initial_temperature")
        if self.init_gain is not None and not self.init_gain > 0:
            raise ValueError(f"init_gain is {self.init_gain}, expected more than 0, or None")
        need_at_least(self, 0, "exploration_noise")


class Actor(nn.Module):
    """A squashed Gaussian policy over actions in (-1, 1)^A."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden_sizes: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> None:
        """A random network from obs [D] to mean and log standard deviation, [2 A]."""
        super().__init__()
        self.action_dim = action_dim
        self.network = relu_mlp((obs_dim, *hidden_sizes, 2 * action_dim), generator)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (within -5 and 2) before the squashing, each [..., A]."""
        mean, log_std = self.network(obs).chunk(2, dim=-1)
        return mean, -5 + 3.5 * (torch.tanh(log_std) + 1)

    def sample(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Actions [..., A], differentiable in the policy's weights, and log-probabilities [...]."""
        return squashed_sample(self, obs, self.draw(obs, generator))

    def draw(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for one action in each of the states obs [..., D]: [..., A]."""
        return torch.randn(*obs.shape[:-1], self.action_dim, generator=generator)


def squashed_sample(actor: ActorFunction, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What `Actor.sample` returns, made of standard normal noise [..., A]."""
    mean, log_std = actor(obs)
    return squash(mean + log_std.exp() * noise, mean, log_std)


class Critics(nn.Module):
    """Two Q-functions; the smaller of their values is what is believed (Fujimoto et al., 2018)."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden_sizes: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> None:
        """Two random networks from (obs, action) [D + A] to a value."""
        super().__init__()
        sizes = (obs_dim + action_dim, *hidden_sizes, 1)
        self.first, self.second = relu_mlp(sizes, generator), relu_mlp(sizes, generator)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Both values of each pair of obs [B, D] and action [B, A]: [2, B]."""
        pair = torch.cat([obs, action], dim=-1)  # [B, D + A]
        return torch.stack([self.first(pair).squeeze(-1), self.second(pair).squeeze(-1)])


class SAC:
    """The agent: `act` in the environment, `update` from a batch of transitions.

    Actions are in (-1, 1)^A inside the agent and in the buffers' units, `low` to `high`, outside.
    """

    def __init__(
        self,
        obs_dim: int,
        low: Tensor,
        high: Tensor,
        config: SACConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """An untrained agent for observations [D] and actions between `low` [A] and `high` [A]."""
        self.config = config = config or SACConfig()
        (self.low, self.high), self.generator = action_bounds(low, high), generator
        action_dim = len(self.low)
        self.actor = Actor(obs_dim, action_dim, config.hidden_sizes, generator)
        self.critics = Critics(obs_dim, action_dim, config.hidden_sizes, generator)
        if config.init_gain is not None:
            for networks in (self.actor, self.critics):
                xavier_weights(networks, config.init_gain, generator)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        # looked up once: to walk through the modules in every update takes a tenth of the time
        self._critic_weights = [*self.critics.parameters()]
        self._target_weights = [*self.targets.parameters()]
        self.log_temperature = torch.tensor(math.log(config.initial_temperature), requires_grad=True)
        self.target_entropy = config.target_entropy * action_dim
        self._compiled: tuple[CompiledGradient, CompiledGradient] | None = None  # of critics, of the policy
        if config.compile:
            from mbrl_course import compiling

            if compiling.can_compile():
                self._compiled = compiling.of_critics(self), compiling.of_policy(self)

        def adam(parameters: object) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)  # type: ignore[arg-type]

        self.actor_optimizer = adam([*self.actor.parameters(), self.log_temperature])
        self.critic_optimizer = adam(self.critics.parameters())

    @property
    def temperature(self) -> Tensor:
        """alpha, the price of entropy in units of reward; a scalar without gradient."""
        return self.log_temperature.detach().exp()

    def to_task(self, action: Tensor) -> Tensor:
        """Actions in (-1, 1) [..., A] in the task's units."""
        return self.low + (action + 1) / 2 * (self.high - self.low)

    def from_task(self, action: Tensor) -> Tensor:
        """The inverse of `to_task`."""
        return 2 * (action - self.low) / (self.high - self.low) - 1

    @torch.no_grad()
    def act(self, obs: Tensor, *, explore: bool = True) -> Tensor:
        """Actions [..., A] in the task's units for obs [..., D]; the mode of the policy without `explore`."""
        if explore:
            return self.to_task(self.actor.sample(obs, self.generator)[0])
        return self.to_task(torch.tanh(self.actor(obs)[0]))

    @torch.no_grad()
    def explore(self, obs: Tensor) -> Tensor:
        """Actions to collect data with: those of `act`, with noise where the critics disagree about them.

        The noise is Gaussian with a standard deviation of c |Q_1 - Q_2| / (|Q_1| + |Q_2|), at most c, in
        halves of the actions' range, and the sum is clipped: where the values are doubtful, more is tried.

        Args:
            obs: [..., D].

        Returns:
            Actions [..., A] in the task's units; those of `act` where c, the `exploration_noise`, is 0.
        """
        action = self.act(obs)
        if self.config.exploration_noise == 0:
            return action
        q = self.critics(obs, self.from_task(action))  # [2, ...]
        doubt = (q[0] - q[1]).abs() / q.abs().sum(dim=0).clamp(min=1e-6)  # [...]
        noise = torch.randn(action.shape, generator=self.generator)
        std = self.config.exploration_noise * doubt.unsqueeze(-1)  # [..., 1]
        return self.to_task((self.from_task(action) + std * noise).clamp(-1, 1))

    def set_learning_rate(self, learning_rate: float) -> None:
        """From now on both Adams use this learning rate."""
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            optimizer.param_groups[0]["lr"] = learning_rate

    def update(self, batch: Batch, weights: Tensor | None = None) -> dict[str, float]:
        """One update of critics, actor, temperature and target critics.

        Args:
            batch: B transitions in the task's units.
            weights: of the rows in the critics' loss, [B] (prioritized replay); all 1 by default.

        Returns:
            The losses and the temperature, by name.

        Raises:
            FloatingPointError: the critics' loss is not finite any more.
        """
        next_noise = self.actor.draw(batch.next_obs, self.generator)
        noise = self.actor.draw(batch.obs, self.generator)
        losses = self.gradient_steps(batch, next_noise, noise, weights)
        values = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(loss := values["critic_loss"]):
            raise FloatingPointError(f"the critics' loss is {loss}: is learning_rate small enough?")
        return values

    def gradient_steps(
        self, batch: Batch, next_noise: Tensor, noise: Tensor, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `update` does, with the chance in it given as arguments.

        Args:
            batch: B transitions.
            next_noise: standard normal, for the next states' actions, [B, A].
            noise: the same for actions in the states of now, [B, A].
            weights: of the rows, [B].

        Returns:
            The losses and the temperature, by name; scalars without gradient.
        """
        losses = {
            "critic_loss": self.update_critics(batch, next_noise, weights),
            "actor_loss": self.update_actor_and_temperature(batch.obs, noise),
            "temperature": self.temperature,
        }
        self.update_targets()
        return losses

    @torch.no_grad()
    def soft_target(self, batch: Batch, noise: Tensor) -> Tensor:
        """The critics' target for each transition, see `critic_target`.

        Args:
            batch: B transitions.
            noise: standard normal, [B, A]: it makes the next actions.

        Returns:
            [B].
        """
        next_action, next_log_prob = squashed_sample(self.actor, batch.next_obs, noise)
        next_q = self.targets(batch.next_obs, next_action)  # [2, B]
        return critic_target(
            batch.reward, batch.terminated, next_q, next_log_prob, self.temperature, self.config.gamma
        )

    @torch.no_grad()
    def td_errors(self, batch: Batch) -> Tensor:
        """How far the critics are from their target, averaged over the two, for each transition, [B]."""
        q = self.critics(batch.obs, self.from_task(batch.action))  # [2, B]
        noise = self.actor.draw(batch.next_obs, self.generator)
        return (q - self.soft_target(batch, noise)).abs().mean(dim=0)

    def critics_loss(
        self, critics: CriticsFunction, batch: Batch, noise: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The loss of `critics` on a batch, see `soft_target` and `critic_loss`.

        Args:
            critics: the agent's own, or a function that stands for them.
            batch: B transitions in the task's units.
            noise: standard normal, [B, A]: it makes the next actions.
            weights: of the rows, [B].

        Returns:
            A scalar.
        """
        q = critics(batch.obs, self.from_task(batch.action))  # [2, B]
        return critic_loss(q, self.soft_target(batch, noise), weights)

    def policy_losses(
        self, actor: ActorFunction, log_temperature: Tensor, obs: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of actor and temperature together, and that of the actor alone.

        The two share no parameter, so their sum has the gradient of each.

        Args:
            actor: the agent's own, or a function that stands for it.
            log_temperature: log alpha, a scalar.
            obs: [B, D].
            noise: standard normal, [B, A]: it makes the actions.

        Returns:
            Two scalars.
        """
        action, log_prob = squashed_sample(actor, obs, noise)
        loss = actor_loss(self.critics(obs, action), log_prob, self.temperature)
        return loss + temperature_loss(log_temperature, log_prob, self.target_entropy), loss

    def update_critics(self, batch: Batch, noise: Tensor, weights: Tensor | None = None) -> Tensor:
        """One gradient step of both critics towards the soft target; returns the loss, see `critics_loss`.

        Args:
            batch: B transitions.
            noise: standard normal, [B, A].
            weights: of the rows, [B].
        """
        if self._compiled is not None:
            loss = self._compiled[0](batch, noise, weights)
        else:
            loss = self.critics_loss(self.critics, batch, noise, weights)
            self.critic_optimizer.zero_grad()
            loss.backward()
        self.critic_optimizer.step()
        return loss.detach()

    def update_actor_and_temperature(self, obs: Tensor, noise: Tensor) -> Tensor:
        """One gradient step of actor and temperature on states [B, D]; returns the actor's loss.

        Args:
            obs: [B, D].
            noise: standard normal, [B, A]: it makes the actions.
        """
        if self._compiled is not None:
            loss = self._compiled[1](obs, noise)
        else:
            self._train_critics(False)  # the actor's loss needs no gradient of the critics' weights
            both, loss = self.policy_losses(self.actor, self.log_temperature, obs, noise)
            self.actor_optimizer.zero_grad()
            both.backward()
            self._train_critics(True)
        self.actor_optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def update_targets(self) -> None:
        """Moves the target critics a share `tau` towards the critics."""
        for target, critic in zip(self._target_weights, self._critic_weights, strict=True):
            target.lerp_(critic, self.config.tau)

    def _train_critics(self, on: bool) -> None:
        for weight in self._critic_weights:
            weight.requires_grad_(on)

    def state_dict(self) -> dict[str, object]:
        """Everything that a resumed run needs, random state included; a copy."""
        state: dict[str, object] = copy.deepcopy(
            {name: part.state_dict() for name, part in self._parts().items()}
        )
        state["log_temperature"] = self.log_temperature.detach().clone()
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Continues from what `state_dict` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))  # an optimizer would go on in the original
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        if self.generator is not None and "generator" in state:
            self.generator.set_state(state["generator"])

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "actor": self.actor,
            "critics": self.critics,
            "targets": self.targets,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }
