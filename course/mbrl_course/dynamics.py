"""Week 1: learning how the world moves.

A dynamics model predicts the next state from the state and the action. Three ideas make it work:

1. predict the *change* of the state, since the next state is mostly the old one (Nagabandi et al., 2018,
   "Neural network dynamics for model-based deep reinforcement learning with model-free fine-tuning", Eq. 1);
2. normalise what goes in and what comes out, since positions, velocities and angles differ in scale;
3. hold data out, since a model is judged on transitions that it was not fitted to.

The model is an ensemble from the start: E networks of the same shape, evaluated as one batched matrix
product. E = 1 is the ordinary case; what more members are good for is the subject of week 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbrl_course.buffers import Batch, check_transitions
from mbrl_course.envs.task import RewardFunction, TerminationFunction, never_terminates
from mbrl_course.fitting import (
    EarlyStopping,
    FitResult,
    random_batches,
    shuffled_batches,
    split_holdout,
    with_supervised_noise,
)
from mbrl_course.networks import ACTIVATIONS, PRECISIONS, EnsembleMLP, check_widths, rows_of_members
from mbrl_course.validation import need_positive, need_whole


class Normalizer(nn.Module):
    """Brings each dimension of the data to mean 0 and standard deviation 1, and back.

    Attributes:
        mean: of the data that it was fitted to, [D]; 0 before.
        std: standard deviation of the data, [D]; 1 before, and 1 for a dimension that does not vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        """The identity on vectors of length `dim`, until `fit` is called."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, x: Tensor) -> None:
        """Sets `mean` and `std` from data.

        A dimension that does not vary (a standard deviation of at most 1e-6 * max(1, largest |x|)) gets the
        standard deviation 1: dividing by nearly nothing would turn rounding errors into large inputs.

        Args:
            x: data, [N, D].
        """
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)  # [D]
        varies = std > 1e-6 * x.abs().amax(dim=0).clamp(min=1.0)
        self.mean = mean
        self.std = torch.where(varies, std, torch.ones_like(std))

    def normalize(self, x: Tensor) -> Tensor:
        """`(x - mean) / std`, for x of shape [..., D]."""
        return (x - self.mean) / self.std

    def denormalize(self, z: Tensor) -> Tensor:
        """The inverse of `normalize`: `mean + std * z`, for z of shape [..., D]."""
        return self.mean + self.std * z


def predict_next_obs(
    network: Callable[[Tensor], Tensor],
    normalize_input: Callable[[Tensor], Tensor],
    denormalize_change: Callable[[Tensor], Tensor],
    obs: Tensor,
    action: Tensor,
) -> Tensor:
    """The next state that a network predicts, by way of the normalised change of the state.

    The network sees the normalised pair of state and action, and answers with the normalised change:
    s' = s + denormalize(f(normalize(s, a))) (Nagabandi et al., 2018, Section IV-A).

    Args:
        network: f, maps [..., D + A] to [..., D].
        normalize_input: maps (state, action) pairs, concatenated in this order, to normalised ones,
            [..., D + A] to [..., D + A].
        denormalize_change: maps normalised changes to changes in the state's own units, [..., D] to [..., D].
        obs: states, [..., D].
        action: actions, [..., A].

    Returns:
        The predicted next states, [..., D].
    """
    inputs = torch.cat([obs, action], dim=-1)  # [..., D + A]
    return obs + denormalize_change(network(normalize_input(inputs)))


def training_step(
    network: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> float:
    """One gradient step on the mean squared error of a mini-batch.

    The loss is the mean of (network(inputs) - targets)^2 over samples and dimensions, summed over the
    members of the ensemble.

    Args:
        network: maps [E, B, D + A] to [E, B, D].
        optimizer: holds the network's parameters.
        inputs: normalised (state, action) pairs, [E, B, D + A].
        targets: normalised changes of the state, [E, B, D].

    Returns:
        The loss before the step, averaged over the members.
    """
    squared_error = (network(inputs) - targets).square()  # [E, B, D]
    member_loss = squared_error.mean(dim=(1, 2))  # [E]
    optimizer.zero_grad()
    member_loss.sum().backward()
    optimizer.step()
    return member_loss.mean().item()


def k_step_errors(predict: Callable[[Tensor, Tensor], Tensor], obs: Tensor, actions: Tensor) -> Tensor:
    """How far the model has drifted from the real trajectory after k steps, for k = 1 .. K.

    The model starts at the real state s_0 and from then on sees only its own predictions, with the real
    actions a_0 .. a_{k-1}. E_k is the mean over trajectories and dimensions of (s_hat_k - s_k)^2.

    Args:
        predict: the model, maps states [B, D] and actions [B, A] to next states [B, D].
        obs: real trajectories s_0 .. s_K, [B, K + 1, D].
        actions: the actions a_0 .. a_{K-1} taken on the way, [B, K, A].

    Returns:
        E_1 .. E_K, [K], in squared units of the state.
    """
    errors = []
    predicted = obs[:, 0]  # [B, D]
    for k in range(actions.shape[1]):
        predicted = predict(predicted, actions[:, k])
        errors.append((predicted - obs[:, k + 1]).square().mean())
    return torch.stack(errors)  # [K]


@dataclass(frozen=True)
class DynamicsConfig:
    """How a dynamics model looks and learns.

    Attributes:
        ensemble_size: E, number of networks.
        hidden_sizes: width of each hidden layer.
        activation: "silu", "relu" or "tanh".
        learning_rate: of Adam.
        batch_size: transitions per gradient step and member.
        holdout_fraction: share of the data that is kept for judging the fit, in [0, 1).
        patience: `fit(max_epochs=...)` stops after this many epochs without a better hold-out loss.
        learn_reward: predict the reward too, as one more output.
        precision: of predictions, "float32" or "bfloat16"; the latter rounds to 8 significant bits, and is a
            few times as fast on processors that have instructions for it. Training is always in float32.
    """

    ensemble_size: int = 1
    hidden_sizes: tuple[int, ...] = (250, 250)
    activation: str = "silu"
    learning_rate: float = 1e-3
    batch_size: int = 512
    holdout_fraction: float = 0.1
    patience: int = 5
    learn_reward: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        need_whole(self, "ensemble_size", "batch_size", "patience")
        check_widths(self.hidden_sizes)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, expected one of {sorted(ACTIVATIONS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {sorted(PRECISIONS)}")
        need_positive(self, "learning_rate")
        if not 0 <= self.holdout_fraction < 1:
            raise ValueError(f"holdout_fraction is {self.holdout_fraction}, expected in [0, 1)")


class DynamicsModel(nn.Module):
    """An ensemble of networks that predicts next states (and rewards), with all that is needed to fit it.

    Attributes:
        network: the ensemble.
        input_normalizer: statistics of (obs, action), [D + A].
        target_normalizer: statistics of the change of obs (and of the reward, if it is learned), [D (+ 1)].
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: DynamicsConfig | None = None,
        *,
        reward: RewardFunction | None = None,
        terminated: TerminationFunction = never_terminates,
        generator: torch.Generator | None = None,
    ) -> None:
        """An untrained model.

        Args:
            obs_dim: D.
            action_dim: A.
            config: its shape and how it learns.
            reward: the task's reward function; not needed where the reward is learned.
            terminated: the task's termination function.
            generator: source of randomness of the initial weights.
        """
        super().__init__()
        self.config = config = config or DynamicsConfig()
        self.obs_dim, self.action_dim, self.ensemble_size = obs_dim, action_dim, config.ensemble_size
        self.reward, self.terminated = reward, terminated
        target_dim = obs_dim + config.learn_reward
        self.network = EnsembleMLP(
            config.ensemble_size,
            obs_dim + action_dim,
            target_dim,
            config.hidden_sizes,
            config.activation,
            generator,
        )
        self.input_normalizer = Normalizer(obs_dim + action_dim)
        self.target_normalizer = Normalizer(target_dim)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

    def fit(
        self,
        data: Batch,
        *,
        num_steps: int | None = None,
        max_epochs: int | None = None,
        noise: float = 0.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> FitResult:
        """Fits normalizers and networks to transitions; may be called again when there are more.

        Either for a number of gradient steps, or for epochs until the hold-out loss has not improved for
        `patience` of them; the weights of the best epoch are kept then. Every member draws its own
        mini-batches, which is (with the random initial weights) what makes the members differ.

        Args:
            data: N transitions.
            num_steps: number of gradient steps, 0 to refresh the normalizers alone.
            max_epochs: largest number of passes through the data.
            noise: standard deviation of noise added to inputs and targets, relative to the mean absolute
                value of each dimension (CS285 uses 0.01).
            generator: source of randomness of the split, the mini-batches and the noise.
            progress: show a progress bar.

        Returns:
            Training and hold-out losses.

        Raises:
            ValueError: not exactly one of `num_steps` and `max_epochs` is given, or there are no data.
        """
        if (num_steps is None) == (max_epochs is None):
            raise ValueError("give either num_steps or max_epochs, not both and not neither")
        config, result = self.config, FitResult()
        inputs, targets = self._training_data(data, noise, generator)
        train, holdout = split_holdout(len(inputs), config.holdout_fraction, generator)
        sizes = config.ensemble_size, config.batch_size

        def train_on(batches: Iterable[Tensor]) -> None:
            for rows in batches:  # [E, B]
                loss = training_step(self.network, self.optimizer, inputs[rows], targets[rows])
                result.train_losses.append(loss)

        def judge() -> float:
            result.holdout_losses.append(self._loss(inputs[holdout], targets[holdout]))
            return result.holdout_losses[-1]

        if num_steps is not None:
            batches = random_batches(train, num_steps, *sizes, generator)
            train_on(tqdm(batches, "gradient steps", num_steps, disable=not progress, leave=False))
            if len(holdout):
                judge()
            return result
        stopping = EarlyStopping(self.network, config.patience)
        for _ in tqdm(range(max_epochs or 0), "epochs", disable=not progress, leave=False):
            train_on(shuffled_batches(train, *sizes, generator))
            if len(holdout) and stopping.update(judge()):
                break
        stopping.restore()
        return result

    def _training_data(
        self, data: Batch, noise: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Normalised inputs [N, D + A] and targets [N, D (+ 1)] of the networks; fits the normalizers."""
        if len(data.obs) == 0:
            raise ValueError("there are no transitions to fit a model to")
        data = check_transitions(data, self.obs_dim, self.action_dim)
        inputs = torch.cat([data.obs, data.action], dim=-1)  # [N, D + A]
        targets = data.next_obs - data.obs  # [N, D]
        if self.config.learn_reward:
            targets = torch.cat([targets, data.reward.unsqueeze(-1)], dim=-1)  # [N, D + 1]
        self.input_normalizer.fit(inputs)
        self.target_normalizer.fit(targets)
        if noise > 0:
            inputs = with_supervised_noise(inputs, noise, generator)
            targets = with_supervised_noise(targets, noise, generator)
        return self.input_normalizer.normalize(inputs), self.target_normalizer.normalize(targets)

    @torch.inference_mode()
    def _loss(self, inputs: Tensor, targets: Tensor) -> float:
        """Mean squared error in normalised units, averaged over samples, dimensions and members."""
        return (self.network(inputs) - targets).square().mean().item()

    def predict(self, obs: Tensor, action: Tensor) -> Tensor:
        """Next states as each member predicts them.

        Args:
            obs: [N, D], or [E, N, D] with states of each member's own.
            action: [N, A] or [E, N, A].

        Returns:
            [E, N, D].

        Raises:
            ValueError: obs or action has the wrong width.
        """
        return self._predict(obs, action)[0]

    def _predict(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """Next states [E, N, D] and, where it is learned, the reward [E, N]."""
        widths = (self.obs_dim, self.action_dim)
        obs, action = rows_of_members(obs, action, self.ensemble_size, *widths)  # [E, N, D], [E, N, A]
        reward: Tensor | None = None

        def denormalize_change(z: Tensor) -> Tensor:
            nonlocal reward
            target = self.target_normalizer.denormalize(z)  # [E, N, D (+ 1)]
            reward = target[..., self.obs_dim] if self.config.learn_reward else None
            return target[..., : self.obs_dim]

        normalize_input = self.input_normalizer.normalize
        network = partial(self.network, precision=PRECISIONS[self.config.precision])
        return predict_next_obs(network, normalize_input, denormalize_change, obs, action), reward

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step of every member: what planners call.

        Args:
            obs: [N, D] or [E, N, D].
            action: [N, A] or [E, N, A].

        Returns:
            next_obs [E, N, D], reward [E, N], terminated (bool) [E, N].

        Raises:
            ValueError: a wrong width, or neither a reward function nor a learned reward is there.
        """
        next_obs, reward = self._predict(obs, action)
        if reward is None:
            if self.reward is None:
                raise ValueError("the model has no reward: pass reward=task.reward, or set learn_reward=True")
            reward = self.reward(obs.expand_as(next_obs), action.expand(*next_obs.shape[:-1], -1), next_obs)
        return next_obs, reward, self.terminated(next_obs)
