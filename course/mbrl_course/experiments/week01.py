"""Week 1: how well dynamics models predict the half-cheetah, and where they stop doing so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import Policy, collect, collect_random, random_policy
from mbrl_course.experiments.runner import Experiment, Objective, Run
from mbrl_course.experiments.variants import scales
from mbrl_course.validation import need_at_least, need_positive, need_some

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.dynamics import DynamicsModel, FitResult


@dataclass(frozen=True)
class ModelFitConfig:
    """Models of different size and training, fitted to the same random data.

    Attributes:
        task: the task.
        num_steps: random environment steps to fit to.
        num_test_steps: further ones to judge the fit by.
        models: each as STEPSx(LAYERSxWIDTH), gradient steps and hidden layers.
        ensemble_size: members of each model.
        batch_size: transitions per gradient step and member.
        learning_rate: of Adam.
        noise: supervised-learning noise, relative to the data's mean absolute values.
        max_k: K, the longest open-loop prediction.
        num_sequences: test trajectories of K steps.
    """

    task: str = "cheetah"
    num_steps: int = 20_000
    num_test_steps: int = 5_000
    models: tuple[str, ...] = ("500x(1x32)", "5x(2x250)", "500x(2x250)")
    ensemble_size: int = 3
    batch_size: int = 512
    learning_rate: float = 1e-3
    noise: float = 0.01
    max_k: int = 20
    num_sequences: int = 500

    def __post_init__(self) -> None:
        """Refuses models that can't be read, and numbers that make no sense, with the field's name."""
        need_some(self, "models")
        for spec in self.models:
            parse_model(spec)
        _check_sizes(self)
        need_at_least(self, 10, "num_steps")  # a tenth of them is held out
        need_at_least(self, 0, "noise")


@dataclass(frozen=True)
class ModelShiftConfig:
    """A model that was fitted to random actions, on states that these do not reach.

    Attributes:
        task: the task.
        num_steps: environment steps of each kind of data to fit to.
        num_test_steps: further ones of each kind to judge by.
        holds: for how many steps each of the other kinds of data keeps its extreme actions.
        model: as in `ModelFitConfig.models`.
        ensemble_size: members of the model.
        batch_size: transitions per gradient step and member.
        learning_rate: of Adam.
        max_k: K, the longest open-loop prediction.
        num_sequences: test trajectories of K steps.
    """

    task: str = "cheetah"
    num_steps: int = 20_000
    num_test_steps: int = 5_000
    holds: tuple[int, ...] = (1, 2, 5)
    model: str = "500x(2x250)"
    ensemble_size: int = 3
    batch_size: int = 512
    learning_rate: float = 1e-3
    max_k: int = 20
    num_sequences: int = 500

    def __post_init__(self) -> None:
        """Refuses a model that can't be read, and numbers that make no sense, with the field's name."""
        parse_model(self.model)
        _check_sizes(self)
        need_at_least(self, 1, "holds")


def _check_sizes(config: ModelFitConfig | ModelShiftConfig) -> None:
    whole = ("num_steps", "num_test_steps", "ensemble_size", "batch_size", "max_k", "num_sequences")
    need_at_least(config, 1, *whole)
    need_positive(config, "learning_rate")
    if config.num_test_steps < config.max_k:
        expected = f"at least max_k = {config.max_k}"
        raise ValueError(f"num_test_steps is {config.num_test_steps}, expected {expected}")


def parse_model(spec: str) -> tuple[int, tuple[int, ...]]:
    """Gradient steps and hidden sizes of "500x(2x250)": (500, (250, 250)).

    Raises:
        ValueError: the text is not of this form.
    """
    match = re.fullmatch(r"([1-9]\d*)x\((\d+)x([1-9]\d*)\)", spec)
    if match is None:
        raise ValueError(f"models holds {spec!r}, expected STEPSx(LAYERSxWIDTH) such as 500x(2x250)")
    steps, layers, width = map(int, match.groups())
    return steps, (width,) * layers


def fit_model(
    spec: str,
    task: Task,
    data: Batch,
    config: ModelFitConfig | ModelShiftConfig,
    generator: torch.Generator,
    progress: bool = False,
) -> tuple[DynamicsModel, FitResult]:
    """A new model, fitted to `data` as `spec` says.

    Args:
        spec: gradient steps and size, see `parse_model`.
        task: gives the sizes of states and actions.
        data: transitions.
        config: ensemble size, batch size, learning rate, noise.
        generator: source of randomness.
        progress: show a progress bar.
    """
    from mbrl_course.dynamics import DynamicsConfig, DynamicsModel

    num_steps, hidden_sizes = parse_model(spec)
    model_config = DynamicsConfig(
        ensemble_size=config.ensemble_size,
        hidden_sizes=hidden_sizes,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )
    model = DynamicsModel(task.obs_dim, task.action_dim, model_config, generator=generator)
    noise = config.noise if isinstance(config, ModelFitConfig) else 0.0
    result = model.fit(data, num_steps=num_steps, noise=noise, generator=generator, progress=progress)
    return model, result


def mean_prediction(model: DynamicsModel) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean of the members' predictions as a function of obs [N, D] and action [N, A]: [N, D]."""

    @torch.inference_mode()
    def predict(obs: Tensor, action: Tensor) -> Tensor:
        return model.predict(obs, action).mean(dim=0)

    return predict


def trajectories(data: Batch, length: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stretches of real trajectories: states [count, length + 1, D] and actions [count, length, A].

    Args:
        data: transitions in the order in which they happened.
        length: steps of each.
        count: how many.
        generator: source of randomness.
    """
    from mbrl_course.buffers import ReplayBuffer

    buffer = ReplayBuffer(len(data.obs), data.obs.shape[1], data.action.shape[1])
    buffer.add(*data)
    drawn = buffer.sample_sequences(count, length, generator)
    return torch.cat([drawn.obs, drawn.next_obs[:, -1:]], dim=1), drawn.action  # [B, K + 1, D], [B, K, A]


def open_loop(predict: Callable[[Tensor, Tensor], Tensor], obs: Tensor, actions: Tensor) -> Tensor:
    """Where the model thinks that actions [B, K, A] lead from states [B, D]: states [B, K + 1, D]."""
    states = [obs]
    for k in range(actions.shape[1]):
        states.append(predict(states[-1], actions[:, k]))
    return torch.stack(states, dim=1)


def holding_policy(task: Task, hold: int, generator: torch.Generator) -> Policy:
    """A policy of extreme actions: each entry at one of its bounds, drawn anew every `hold` steps."""
    count, action = 0, task.action_low

    def policy(obs: Tensor) -> Tensor:
        nonlocal count, action
        if count % hold == 0:
            heads = torch.rand(task.action_dim, generator=generator) < 0.5
            action = torch.where(heads, task.action_low, task.action_high)
        count += 1
        return action

    return policy


def relative_error(predict: Callable[[Tensor, Tensor], Tensor], data: Batch) -> float:
    """One-step squared error relative to that of predicting no change, averaged over dimensions that change.

    0 is perfect; 1 is no better than "everything stays as it is".
    """
    error = (predict(data.obs, data.action) - data.next_obs).square().mean(dim=0)  # [D]
    change = (data.next_obs - data.obs).square().mean(dim=0)  # [D]
    moves = change > 1e-12
    return float((error[moves] / change[moves]).mean())


def run_model_fits(config: ModelFitConfig, run: Run) -> None:
    """q1: losses, mean prediction error and E_k of each model.

    Rows: model, metric, step, value; the metrics are "loss" (of gradient step `step`), "holdout_loss",
    "E_k" (`step` is k) and "mpe", the mean prediction error: the mean of E_1 .. E_K.
    """
    from mbrl_course.dynamics import k_step_errors

    task = get_task(config.task)
    data_generator = torch.Generator().manual_seed(run.seed)  # the same data after an interruption
    data, _ = collect_random(task, config.num_steps, data_generator, progress=run.progress)
    test, _ = collect_random(task, config.num_test_steps, data_generator, progress=run.progress)
    obs, actions = trajectories(test, config.max_k, config.num_sequences, data_generator)
    for spec in run.units(config.models, "models"):
        model, result = fit_model(spec, task, data, config, run.generator, run.progress)
        errors = k_step_errors(mean_prediction(model), obs, actions)
        losses = result.train_losses
        for step in thinned(len(losses)):
            run.log(model=spec, metric="loss", step=step + 1, value=losses[step])
        run.log(model=spec, metric="holdout_loss", step=len(losses), value=result.holdout_losses[-1])
        for k, error in enumerate(errors, start=1):
            run.log(model=spec, metric="E_k", step=k, value=float(error))
        run.log(model=spec, metric="mpe", step=config.max_k, value=float(errors.mean()))


def curves_of(frame: pd.DataFrame, metric: str, by: str = "model") -> dict[str, pd.DataFrame]:
    """The curves of one metric of q1 or model-shift, for plots: seeds x steps for each model.

    Args:
        frame: the results.
        metric: "loss" or "E_k", say.
        by: the column that tells the models apart.
    """
    rows = frame[frame["metric"] == metric]
    return {
        str(name): group.pivot(index="seed", columns="step", values="value")
        for name, group in rows.groupby(by, sort=False)
    }


def thinned(count: int, points: int = 100) -> list[int]:
    """Indices of at most about `points` of `count` entries, evenly spread, the first and last among them."""
    every = max(1, count // points)
    return sorted({*range(0, count, every), count - 1})


def run_model_shift(config: ModelShiftConfig, run: Run) -> None:
    """model-shift: two models on several kinds of data.

    The data are "random" (independent random actions) and "held K" (extreme actions that are held for K
    steps, which takes the cheetah elsewhere); one model is fitted to "random", one to "all".

    Rows: trained_on, tested_on, metric, step, value; the metrics are "one_step" (see `relative_error`),
    "distance" (of the inputs from the training data's mean, root mean square over samples and dimensions, in
    their standard deviations) and "E_k" (`step` is k).
    """
    from mbrl_course.buffers import concatenate
    from mbrl_course.dynamics import k_step_errors

    task = get_task(config.task)
    data_generator = torch.Generator().manual_seed(run.seed)  # the same data after an interruption
    policies = {"random": random_policy(task, data_generator)}
    policies |= {f"held {hold}": holding_policy(task, hold, data_generator) for hold in config.holds}
    train: dict[str, Batch] = {}
    test: dict[str, Batch] = {}
    for name, policy in policies.items():
        for part, steps in ((train, config.num_steps), (test, config.num_test_steps)):
            part[name] = collect(task, policy, steps, data_generator, progress=run.progress).data
    drawn = {
        name: trajectories(data, config.max_k, config.num_sequences, data_generator)
        for name, data in test.items()
    }
    fits = {"random": train["random"], "all": concatenate(list(train.values()))}
    for trained_on in run.units(fits, "models"):
        model, _ = fit_model(config.model, task, fits[trained_on], config, run.generator, run.progress)
        predict = mean_prediction(model)
        for tested_on, data in test.items():
            labels = {"trained_on": trained_on, "tested_on": tested_on}
            inputs = model.input_normalizer.normalize(torch.cat([data.obs, data.action], dim=-1))
            run.log(**labels, metric="distance", step=1, value=float(inputs.square().mean().sqrt()))
            run.log(**labels, metric="one_step", step=1, value=relative_error(predict, data))
            for k, error in enumerate(k_step_errors(predict, *drawn[tested_on]), start=1):
                run.log(**labels, metric="E_k", step=k, value=float(error))


_TINY = {"num_steps": 1500, "num_test_steps": 500, "num_sequences": 50, "ensemble_size": 1}

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="q1",
        week=1,
        title="Half-cheetah: models of different size and training on 20,000 random steps",
        function=run_model_fits,
        configs=scales(ModelFitConfig(), {"ensemble_size": 1}, _TINY),
        published="500x(2x250) best; its loss below 0.2 by step 500 (CS285, homework 4, problem 1)",
        objective=Objective("value", lower=True, where="metric == 'holdout_loss'"),
    ),
    Experiment(
        name="model-shift",
        week=1,
        title="Half-cheetah: a model's error on states unlike its training data",
        function=run_model_shift,
        configs=scales(ModelShiftConfig(), {"ensemble_size": 1}, {**_TINY, "model": "200x(2x64)"}),
        objective=Objective("value", lower=True, where="metric == 'one_step'"),
    ),
)
