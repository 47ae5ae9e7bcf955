"""Week 4: knowing what you don't know. Ensembles of probabilistic networks.

A model that is wrong and sure of it misleads every planner. Two kinds of doubt have to be told apart
(Chua et al., 2018, "Deep reinforcement learning in a handful of trials using probabilistic dynamics models",
PETS, Section 4):

- *aleatoric*: the world itself is noisy; each network predicts a Gaussian with a variance of its own;
- *epistemic*: there were too few data here; several networks, each from first weights of its own
  (Lakshminarayanan et al., 2017, "Simple and scalable predictive uncertainty estimation using deep
  ensembles") and trained on its own bootstrap of the data (PETS), disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm.auto import tqdm

from mbrl_course.buffers import Batch, check_transitions
from mbrl_course.dynamics import Normalizer
from mbrl_course.envs.task import RewardFunction, TerminationFunction, never_terminates
from mbrl_course.fitting import split_holdout
from mbrl_course.networks import (
    ACTIVATIONS,
    PLAIN_LAYERS,
    PRECISIONS,
    EnsembleMLP,
    check_widths,
    rows_of_members,
    xavier_weights,
)
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_positive, need_whole

if TYPE_CHECKING:
    from mbrl_course.compiling import CompiledGradient


def gaussian_nll(mean: Tensor, log_var: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of `target` under a Gaussian with diagonal covariance, per dimension.

    -log N(y; mu, s^2) = ((y - mu)^2 / s^2 + log s^2 + log 2 pi) / 2 (PETS, Eq. 1, up to its constants).

    Args:
        mean: mu, [..., D].
        log_var: log s^2, [..., D].
        target: y, [..., D].

    Returns:
        In nats, [..., D].
    """
    squared_error = (target - mean).square()
    return 0.5 * (squared_error * torch.exp(-log_var) + log_var + math.log(2 * math.pi))


def bound_log_var(log_var: Tensor, min_log_var: Tensor, max_log_var: Tensor) -> Tensor:
    """Squeezes a log-variance softly between two bounds.

    Far from the data a network's variance can become anything, zero and infinity included; a hard clamp
    would stop its gradient there, softplus does not: from above by max - softplus(max - x), then from below
    by its mirror image (PETS, Appendix A.1).

    Args:
        log_var: unbounded, [..., D].
        min_log_var: lower bound, [D].
        max_log_var: upper bound, [D].

    Returns:
        Between the bounds (exceeding the upper one by log 2 at the very most, where it is above the lower
        one), [..., D].
    """
    log_var = max_log_var - softplus(max_log_var - log_var)
    return min_log_var + softplus(log_var - min_log_var)


def ensemble_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of E networks side by side: member e computes x_e W_e + b_e.

    Args:
        x: inputs of each member, [E, N, in], or [N, in] for all members alike.
        weight: of each member, [E, in, out].
        bias: of each member, [E, 1, out].

    Returns:
        Outputs of each member, [E, N, out].
    """
    return torch.baddbmm(bias, x.expand(len(weight), -1, -1), weight)


PLAIN_LAYERS.add(ensemble_layer)


class VarianceParts(NamedTuple):
    """The variance of an ensemble's prediction, in two parts that sum to it."""

    aleatoric: Tensor  # [..., D] mean over members of their own variance
    epistemic: Tensor  # [..., D] variance over members of their means


def split_variance(means: Tensor, variances: Tensor) -> VarianceParts:
    """The law of total variance: Var[y] = E_member[Var[y | member]] + Var_member[E[y | member]].

    Args:
        means: of each member, [E, ..., D].
        variances: of each member, [E, ..., D].

    Returns:
        Aleatoric and epistemic part, each [..., D].
    """
    return VarianceParts(variances.mean(dim=0), means.var(dim=0, correction=0))


def bootstrap_rows(num_rows: int, ensemble_size: int, generator: torch.Generator | None = None) -> Tensor:
    """For each member its own sample of the data: rows drawn with replacement, [E, N]."""
    return torch.randint(num_rows, (ensemble_size, num_rows), generator=generator)


def ensemble_loss(nll: Tensor, min_log_var: Tensor, max_log_var: Tensor, bound_penalty: float) -> Tensor:
    """The training loss of an ensemble: its members' losses, and a regulariser of the learned bounds.

    The NLL is averaged over samples and dimensions and summed over members, so that each member learns as
    fast as it would alone; the regulariser pulls the two bounds together (PETS, Appendix A.1).

    Args:
        nll: of each member, sample and dimension, [E, B, T].
        min_log_var: learned lower bound of the log-variance, [T].
        max_log_var: learned upper bound, [T].
        bound_penalty: weight of the sum over dimensions of their distances.

    Returns:
        A scalar.
    """
    return nll.mean(dim=(1, 2)).sum() + bound_penalty * (max_log_var - min_log_var).sum()


def choose_elites(holdout_losses: Tensor, num_elites: int) -> Tensor:
    """The members with the smallest hold-out losses, the best first.

    Args:
        holdout_losses: [E]; NaN ranks last.
        num_elites: how many to keep (5 of 7 in the code of MBPO; Janner et al., 2019).

    Returns:
        Their numbers, [num_elites].
    """
    losses = torch.where(holdout_losses.isnan(), torch.inf, holdout_losses)
    return losses.argsort(stable=True)[:num_elites]


@dataclass(frozen=True)
class EnsembleConfig:
    """How a Gaussian ensemble looks and learns.

    Attributes:
        ensemble_size: E, number of networks.
        num_elites: how many of them are used after a fit: those with the smallest hold-out losses, or, where
            there are no hold-out data, the first ones.
        hidden_sizes: width of each hidden layer.
        activation: "silu", "relu" or "tanh".
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: transitions per gradient step and member.
        holdout_fraction: share of the data for early stopping and for choosing elites, in [0, 1).
        patience: a fit stops after this many epochs in which no member improved its hold-out MSE by 1 %; each
            goes back to its own best epoch. With few data an epoch is few steps: take more patience then, or
            smaller batches.
        bootstrap: each member sees its own bootstrap of the data; otherwise all see all.
        learn_reward: predict the reward too, as one more output.
        bound_penalty: weight of the regulariser that pulls the learned bounds together.
        precision: of predictions, as in `mbrl_course.dynamics.DynamicsConfig`.
        init_gain: draws the first weights with `networks.xavier_weights` and this gain; None leaves them.
        compile: have the loss and its gradient compiled, see `mbrl_course.compiling`.
    """

    ensemble_size: int = 5
    num_elites: int = 5
    hidden_sizes: tuple[int, ...] = (200, 200, 200)
    activation: str = "silu"
    learning_rate: float = 1e-3
    weight_decay: float = 5e-5
    batch_size: int = 256
    holdout_fraction: float = 0.1
    patience: int = 5
    bootstrap: bool = True
    learn_reward: bool = False
    bound_penalty: float = 0.01
    precision: str = "float32"
    init_gain: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        need_whole(self, "ensemble_size", "num_elites", "batch_size", "patience")
        check_widths(self.hidden_sizes)
        if self.num_elites > self.ensemble_size:
            expected = f"at most the ensemble_size {self.ensemble_size}"
            raise ValueError(f"num_elites is {self.num_elites}, expected {expected}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, expected one of {sorted(ACTIVATIONS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {sorted(PRECISIONS)}")
        need_at_least(self, 0, "weight_decay", "bound_penalty")
        need_positive(self, "learning_rate")
        if self.init_gain is not None and not self.init_gain > 0:
            raise ValueError(f"init_gain is {self.init_gain}, expected more than 0, or None")
        if not 0 <= self.holdout_fraction < 1:
            raise ValueError(f"holdout_fraction is {self.holdout_fraction}, expected in [0, 1)")


@dataclass
class EnsembleFitResult:
    """What happened during a fit.

    Attributes:
        train_losses: NLL per dimension of every epoch, averaged over members.
        holdout_mse: hold-out MSE of each member after each epoch, normalised units, a list of [E].
        best_epochs: the epoch whose weights each member kept, [E].
        num_updates: gradient steps, each of all members together.
    """

    train_losses: list[float] = field(default_factory=list)
    holdout_mse: list[Tensor] = field(default_factory=list)
    best_epochs: list[int] = field(default_factory=list)
    num_updates: int = 0


class Prediction(NamedTuple):
    """Gaussian predictions of E members: of the next state and, where it is learned, of the reward."""

    obs: Tensor  # [E, N, D] mean
    obs_var: Tensor  # [E, N, D] variance
    reward: Tensor | None  # [E, N] mean
    reward_var: Tensor | None  # [E, N] variance


class GaussianEnsemble(nn.Module):
    """E networks, each of which predicts a Gaussian over the normalised change of the state (and the reward).

    Its `state_dict` is that of the weights, the normalizers and the elites; to go on with a fit, save that of
    `optimizer`, too, and the state of `generator`, if you pass none to `fit`.

    Attributes:
        network: the networks, as one batched `EnsembleMLP` with two outputs per predicted dimension.
        min_log_var: learned lower bound of the log-variance, [T], T = D (+ 1 with a learned reward).
        max_log_var: learned upper bound, [T].
        elites: numbers of the members in use, [num_elites]; the first ones until a fit has chosen.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: EnsembleConfig | None = None,
        *,
        reward: RewardFunction | None = None,
        terminated: TerminationFunction = never_terminates,
        generator: torch.Generator | None = None,
    ) -> None:
        """An untrained ensemble; the arguments are those of `mbrl_course.dynamics.DynamicsModel`.

        `generator` draws the weights. What is drawn later without a generator, as planners do it, comes from
        one that is derived from its seed: whoever looks at the model does not change what `generator` draws.
        """
        super().__init__()
        self.generator: torch.Generator | None = None
        if generator is not None:
            own_seed = independent_seeds([generator.initial_seed(), 1], 1)[0]
            self.generator = torch.Generator().manual_seed(own_seed)
        self.config = config = config or EnsembleConfig()
        self.obs_dim, self.action_dim, self.ensemble_size = obs_dim, action_dim, config.ensemble_size
        self.reward = reward
        # a learned one is a network, too: past nn.Module, so that it is no part of this one's weights
        object.__setattr__(self, "terminated", terminated)
        target_dim = obs_dim + config.learn_reward
        self.network = EnsembleMLP(
            config.ensemble_size,
            obs_dim + action_dim,
            2 * target_dim,
            config.hidden_sizes,
            config.activation,
            generator,
            ensemble_layer,
        )
        if config.init_gain is not None:
            xavier_weights(self.network, config.init_gain, generator)
        self.min_log_var = nn.Parameter(torch.full((target_dim,), -10.0))
        self.max_log_var = nn.Parameter(torch.full((target_dim,), 0.5))
        self.input_normalizer = Normalizer(obs_dim + action_dim)
        self.target_normalizer = Normalizer(target_dim)
        self.register_buffer("elites", torch.arange(config.num_elites))
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

        self._compiled: CompiledGradient | None = None
        if config.compile:
            from mbrl_course import compiling

            if compiling.can_compile():
                self._compiled = compiling.of_ensemble(self)

    elites: Tensor
    terminated: TerminationFunction

    def forward(
        self, inputs: Tensor, members: Tensor | None = None, precision: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and bounded log-variance of the normalised targets, each [E, N, T].

        Args:
            inputs: normalised (obs, action), [E, N, D + A] or [N, D + A] for all members alike.
            members: numbers of the members to ask, [E]; all by default.
            precision: see `mbrl_course.networks.EnsembleMLP`.
        """
        mean, log_var = self.network(inputs, members, precision).chunk(2, dim=-1)  # [E, N, T] each
        return mean, bound_log_var(log_var, self.min_log_var, self.max_log_var)

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss of a mini-batch, and its NLL part for the record.

        Args:
            inputs: normalised, [E, B, D + A].
            targets: normalised, [E, B, T].

        Returns:
            The loss, and the NLL averaged over members; both scalars.
        """
        mean, log_var = self(inputs)
        nll = gaussian_nll(mean, log_var, targets)  # [E, B, T]
        loss = ensemble_loss(nll, self.min_log_var, self.max_log_var, self.config.bound_penalty)
        return loss, nll.mean()

    def fit(
        self,
        data: Batch,
        *,
        max_epochs: int = 100,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> EnsembleFitResult:
        """Fits normalizers and networks to transitions; stops early, keeps each member's best weights.

        Args:
            data: N transitions.
            max_epochs: largest number of passes through the data.
            generator: source of randomness of the split, the bootstraps and the mini-batches; the ensemble's
                own by default.
            progress: show a progress bar.

        Returns:
            Losses, and each member's best epoch.

        Raises:
            ValueError: there are no data, or they have wrong shapes or hold NaN.
            FloatingPointError: the loss is not finite any more.
        """
        generator = self.generator if generator is None else generator
        inputs, targets = self._training_data(data)
        train, holdout = split_holdout(len(inputs), self.config.holdout_fraction, generator)
        own_rows = train.expand(self.ensemble_size, -1)  # [E, N']
        if self.config.bootstrap:
            own_rows = train[bootstrap_rows(len(train), self.ensemble_size, generator)]
        result = EnsembleFitResult()
        best = _BestWeights(self.network, self.config.patience)
        for _ in tqdm(range(max_epochs), "epochs", disable=not progress, leave=False):
            result.train_losses.append(self._epoch(inputs, targets, own_rows, generator))
            if not math.isfinite(result.train_losses[-1]):
                what = f"the loss is {result.train_losses[-1]} after {len(result.train_losses)} epochs"
                raise FloatingPointError(f"{what}: are the data finite, and is learning_rate small enough?")
            result.num_updates += -(-own_rows.shape[1] // self.config.batch_size)
            if len(holdout):
                result.holdout_mse.append(self.holdout_mse(inputs[holdout], targets[holdout]))
                if best.update(result.holdout_mse[-1]):
                    break
        if len(holdout) and result.holdout_mse:
            best.restore()
            result.best_epochs = best.epochs.tolist()
            self.elites = choose_elites(best.losses, self.config.num_elites)
        return result

    def _training_data(self, data: Batch) -> tuple[Tensor, Tensor]:
        """Normalised inputs [N, D + A] and targets [N, T]; fits the normalizers."""
        if len(data.obs) == 0:
            raise ValueError("there are no transitions to fit an ensemble to")
        data = check_transitions(data, self.obs_dim, self.action_dim)
        inputs = torch.cat([data.obs, data.action], dim=-1)  # [N, D + A]
        targets = data.next_obs - data.obs  # [N, D]
        if self.config.learn_reward:
            targets = torch.cat([targets, data.reward.unsqueeze(-1)], dim=-1)  # [N, D + 1]
        self.input_normalizer.fit(inputs)
        self.target_normalizer.fit(targets)
        return self.input_normalizer.normalize(inputs), self.target_normalizer.normalize(targets)

    def training_step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One gradient step of all members, inputs [E, B, D + A] and targets [E, B, T]; the mean NLL."""
        if self._compiled is not None and inputs.shape[1] == self.config.batch_size:  # for the usual size
            nll = self._compiled(inputs, targets)
            self._optimizer_step()
        else:
            loss, nll = self.loss(inputs, targets)
            self.descend(loss)
        return nll.detach()

    def descend(self, loss: Tensor) -> None:
        """One step of the optimizer down the gradient of `loss`, a scalar."""
        self.optimizer.zero_grad()
        loss.backward()
        self._optimizer_step()

    def _optimizer_step(self) -> None:
        self.optimizer.step()
        self.network.forget_rounded()  # it is fused, and leaves no trace by which the network would know

    def _epoch(
        self, inputs: Tensor, targets: Tensor, own_rows: Tensor, generator: torch.Generator | None
    ) -> float:
        """One pass of every member through its own rows [E, N'] in an order of its own; the mean NLL."""
        shuffle = torch.rand(own_rows.shape, generator=generator).argsort(dim=1)  # [E, N']
        losses = []
        for rows in own_rows.gather(1, shuffle).split(self.config.batch_size, dim=1):  # [E, B]
            losses.append(self.training_step(inputs[rows], targets[rows]) * rows.shape[1])
        return float(torch.stack(losses).sum()) / own_rows.shape[1]

    @torch.inference_mode()
    def holdout_mse(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of each member's mean, normalised units, [E]."""
        return (self(inputs)[0] - targets).square().mean(dim=(1, 2))

    @torch.no_grad()
    def predict(self, obs: Tensor, action: Tensor, members: Tensor | None = None) -> Prediction:
        """What the members predict, in the units of the state and the reward.

        Args:
            obs: [N, D] for all members alike, or [E, N, D].
            action: [N, A] or [E, N, A].
            members: numbers of the members to ask; their count takes the place of E. All by default.

        Returns:
            Mean and variance of the next state, [E, N, D], and of the reward, [E, N].

        Raises:
            ValueError: obs or action has the wrong width.
        """
        size = self.ensemble_size if members is None else len(members)
        obs, action = rows_of_members(
            obs, action, size, self.obs_dim, self.action_dim
        )  # [E, N, D], [E, N, A]
        inputs = self.input_normalizer.normalize(torch.cat([obs, action], dim=-1))
        mean, log_var = self(inputs, members, PRECISIONS[self.config.precision])
        mean = self.target_normalizer.denormalize(mean)  # [E, N, T]
        var = log_var.exp() * self.target_normalizer.std.square()  # [E, N, T]
        next_mean = obs + mean[..., : self.obs_dim]
        if self.config.learn_reward:
            return Prediction(next_mean, var[..., : self.obs_dim], mean[..., -1], var[..., -1])
        return Prediction(next_mean, var, None, None)

    def step(
        self,
        obs: Tensor,
        action: Tensor,
        members: Tensor | None = None,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step of each member with rows of its own: what planners call.

        Args:
            obs: [N, D] or [E, N, D].
            action: [N, A] or [E, N, A].
            members: numbers of the members to use, [E]; all by default.
            sample: draw from each member's Gaussian; otherwise take its mean.
            generator: source of randomness; the ensemble's own by default.

        Returns:
            next_obs [E, N, D], reward [E, N], terminated (bool) [E, N].

        Raises:
            ValueError: a wrong width, or neither a reward function nor a learned reward is there.
        """
        generator = self.generator if generator is None else generator
        prediction = self.predict(obs, action, members)
        next_obs = prediction.obs
        if sample:
            noise = torch.randn(next_obs.shape, generator=generator)
            next_obs = next_obs + prediction.obs_var.sqrt() * noise
        learned = prediction.reward
        if sample and learned is not None and prediction.reward_var is not None:
            noise = torch.randn(learned.shape, generator=generator)
            learned = learned + prediction.reward_var.sqrt() * noise
        where, what = obs.expand_as(next_obs), action.expand(*next_obs.shape[:-1], -1)
        return next_obs, self._reward(learned, where, what, next_obs), self.terminated(next_obs)

    def step_random_elites(
        self, obs: Tensor, action: Tensor, *, sample: bool = True, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step of each row by an elite drawn at random (MBPO; TS1 in PETS).

        The rows are shuffled and dealt out evenly, with a few fillers where the elites can't share them, so
        that it is one batched product: every elite is as likely for every row.

        Args:
            obs: [N, D].
            action: [N, A].
            sample: draw from the elite's Gaussian; otherwise take its mean.
            generator: source of randomness; the ensemble's own by default.

        Returns:
            next_obs [N, D], reward [N], terminated (bool) [N].
        """
        generator = self.generator if generator is None else generator
        num_rows, num_elites = len(obs), len(self.elites)
        share = -(-num_rows // num_elites)  # rows per elite, rounded up
        members = self.elites[torch.randperm(num_elites, generator=generator)]
        dealt = torch.randperm(num_rows, generator=generator)
        filler = dealt[torch.arange(share * num_elites - num_rows) % num_rows]  # for an uneven deal
        rows = torch.cat([dealt, filler]).view(share, num_elites).T  # [K, share]
        results = self.step(obs[rows], action[rows], members, sample=sample, generator=generator)
        back = dealt.argsort()  # where in the deal each row went
        next_obs, reward, terminated = (x.transpose(0, 1).flatten(0, 1)[back] for x in results)
        return next_obs, reward, terminated

    def step_mean(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One imagined step by the mean of the elites' means: next_obs [N, D], reward [N], terminated [N].

        Raises:
            ValueError: rewards are neither learned nor given.
        """
        prediction = self.predict(obs, action, self.elites)
        next_obs = prediction.obs.mean(dim=0)  # [N, D]
        learned = None if prediction.reward is None else prediction.reward.mean(dim=0)
        return next_obs, self._reward(learned, obs, action, next_obs), self.terminated(next_obs)

    def _reward(self, learned: Tensor | None, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """The reward of a transition: what is learned of it, otherwise the function's."""
        if learned is not None:
            return learned
        if self.reward is None:
            raise ValueError("the ensemble has no reward: pass reward=task.reward, or set learn_reward=True")
        return self.reward(obs, action, next_obs)


class _BestWeights:
    """Keeps the weights of each member's best epoch, and knows when none of them improves any more.

    The bounds of the log-variance are no member's own: they stay as the last epoch left them.
    """

    def __init__(self, network: EnsembleMLP, patience: int) -> None:
        self.network, self.patience = network, patience
        size = len(network.weights[0])
        self.losses, self.epochs = torch.full((size,), torch.inf), torch.zeros(size, dtype=torch.long)
        self.weights = [parameter.detach().clone() for parameter in network.parameters()]
        self.epoch = -1

    def update(self, losses: Tensor) -> bool:
        """Notes the hold-out losses [E] of one more epoch; True where no member improved for `patience`."""
        self.epoch += 1
        better = losses < self.losses * 0.99  # [E], by 1 % at least (MBPO's rule)
        self.losses = torch.where(better, losses, self.losses)
        self.epochs[better] = self.epoch
        for kept, parameter in zip(self.weights, self.network.parameters(), strict=True):
            kept[better] = parameter.detach()[better]
        return self.epoch - int(self.epochs.max()) >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the best weights of each member back into the network."""
        for kept, parameter in zip(self.weights, self.network.parameters(), strict=True):
            parameter.copy_(kept)
