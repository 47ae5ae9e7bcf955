"""Week 7: MBPO against SAC at equal numbers of real steps, and what its settings do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import collect_random, evaluate_together
from mbrl_course.experiments.runner import Experiment, Objective, Run
from mbrl_course.experiments.solved import SOLVED_AT
from mbrl_course.experiments.variants import (
    Variants,
    divergence_named,
    each_variant,
    ledger,
    one_field,
    scales,
    settings_of,
    variant_of,
    variant_settings,
)
from mbrl_course.validation import need_at_least, need_positive, need_some

if TYPE_CHECKING:  # in a class this may be the student's own, so it is imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.dynamics import DynamicsModel
    from mbrl_course.mbpo import MBPO, MBPOConfig


@dataclass(frozen=True)
class MBPORunConfig(Variants):
    """How long MBPO, or SAC, learns, and how it is judged; the other fields are those of `mbpo.MBPOConfig`.

    Attributes:
        task: the task.
        total_steps: real steps.
        eval_every: real steps between two evaluations.
        num_eval_episodes: of each of them, with the policy's mode.
        device: where buffers, model and agent are, "cpu" or "cuda" (a GPU); environments stay on the CPU.
    """

    task: str = "pendulum"
    total_steps: int = 5000
    eval_every: int = 250
    num_eval_episodes: int = 5
    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    gamma: float = 0.99
    tau: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float = -1.0
    start_steps: int = 500
    updates_per_step: int = 10
    buffer_capacity: int = 100_000
    rollout_lengths: tuple[int, ...] = (1, 1)
    rollout_steps: tuple[int, ...] = (0, 1)
    num_rollouts: int = 10_000
    retained_fits: int = 4
    real_ratio: float = 0.05
    model_every: int = 250
    model_epochs: int = 50
    ensemble_size: int = 7
    num_elites: int = 5
    model_hidden_sizes: tuple[int, ...] = (200, 200)
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    penalty: float = 0.0
    learn_reward: bool = False
    learn_termination: bool = False
    prioritized: bool = False
    priority_alpha: float = 0.6
    priority_beta: float = 0.4
    rollout_mean: bool = False
    lr_schedule: str = "constant"
    init_gain: float | None = None
    exploration_noise: float = 0.0
    compile: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name; the rest is checked by `MBPOConfig`."""
        super().__post_init__()
        need_at_least(self, 1, "total_steps", "eval_every", "num_eval_episodes")

    def settings(self) -> MBPOConfig:
        """The settings of the agent."""
        from mbrl_course.mbpo import MBPOConfig

        return settings_of(MBPOConfig, self)


def run_mbpo(config: MBPORunConfig, run: Run) -> None:
    """mbpo-*, q6: MBPO with each variant; rollouts of length 0 are SAC, and of length 1 Dyna.

    Rows: variant, eval_return (mean over the episodes of an evaluation), and the ledger.
    """
    check_devices(config)
    for name, variant, settings in each_variant(config, run):
        train_mbpo(get_task(variant.task), settings, variant, run, variant=name)


def check_devices(config: MBPORunConfig) -> None:
    """Refuses a variant that can't be on its device, before the first one runs.

    Not a part of `settings`: a cluster has devices of its own.

    Raises:
        ValueError: there is no such device here, or the variant has settings for the CPU alone.
    """
    from mbrl_course.accelerated_mbpo import check_accelerated
    from mbrl_course.accelerator import check_device

    for _, variant, settings in variant_settings(config):
        if check_device(variant.device).type != "cpu":
            check_accelerated(settings)


def make_agent(task: Task, settings: MBPOConfig, seed: int, device: str) -> MBPO:
    """An untrained agent on the device, "cpu" or "cuda"."""
    if device == "cpu":
        from mbrl_course.mbpo import MBPO

        return MBPO(task, settings, seed)
    from mbrl_course.accelerated_mbpo import AcceleratedMBPO
    from mbrl_course.accelerator import check_device

    return AcceleratedMBPO(task, settings, seed, check_device(device))


def train_mbpo(
    task: Task,
    settings: MBPOConfig,
    config: MBPORunConfig,
    run: Run,
    *,
    judge: Task | None = None,
    **labels: Any,
) -> None:
    """MBPO once, with a checkpoint after every evaluation.

    Args:
        task: what the agent learns.
        settings: of the agent.
        config: how long it learns, and how it is evaluated.
        run: where rows and checkpoints go.
        judge: what it is evaluated in, where that is another task.
        labels: further columns of the rows.
    """
    agent = make_agent(task, settings, run.seed, config.device)
    if (state := run.restore()) is not None:
        agent.load_state_dict(state)

    def after_step(agent: MBPO) -> None:
        spent = agent.counters
        if spent.real_steps % config.eval_every and spent.real_steps < config.total_steps:
            return
        costs = ledger(run, spent.real_steps, spent.imagined_steps, spent.gradient_steps, spent.model_updates)
        with run.not_counted():
            returns = evaluate_together(judge or task, agent.act, config.num_eval_episodes, run.seed)
            run.log(**labels, eval_return=returns.mean(), **costs)
            run.checkpoint(agent.state_dict())

    with divergence_named(agent.sac.actor, agent.sac.critics):
        agent.train(config.total_steps, after_step, progress=run.progress)


SITUATIONS = ("whole state", "small networks", "part of the state")


@dataclass(frozen=True)
class MultiStepRunConfig:
    """A multi-step model against a one-step model that is asked again and again.

    Attributes:
        task: the task, in which random actions make the data.
        data_sizes: numbers of environment steps to learn from.
        situations: some of `SITUATIONS`.
        num_steps: K, steps that are predicted.
        num_updates: gradient steps of each model.
        batch_size: transitions, or stretches of K of them, per gradient step.
        learning_rate: of Adam.
        hidden_sizes: of the one-step model, and of each of the K networks of the other one.
        small_hidden_sizes: in place of these where networks are small.
        seen: numbers of the state that remain where a part of it is seen, its first ones.
        test_steps: fresh environment steps to judge by.
    """

    task: str = "pendulum"
    data_sizes: tuple[int, ...] = (500, 2000, 8000)
    situations: tuple[str, ...] = SITUATIONS
    num_steps: int = 10
    num_updates: int = 3000
    batch_size: int = 128
    learning_rate: float = 1e-3
    hidden_sizes: tuple[int, ...] = (64, 64)
    small_hidden_sizes: tuple[int, ...] = (4,)
    seen: int = 2
    test_steps: int = 2000

    def __post_init__(self) -> None:
        """Refuses unknown situations and numbers that make no sense, with the field's name."""
        need_some(self, "data_sizes", "situations")
        for name in self.situations:
            if name not in SITUATIONS:
                raise ValueError(f"situations holds {name!r}, expected some of {', '.join(SITUATIONS)}")
        need_at_least(self, 1, "num_steps", "num_updates", "batch_size", "seen")
        need_at_least(self, 1, "hidden_sizes", "small_hidden_sizes")
        need_at_least(self, self.num_steps, "data_sizes", "test_steps")
        need_positive(self, "learning_rate")
        if self.seen > (obs_dim := get_task(self.task).obs_dim):
            raise ValueError(f"seen is {self.seen}, expected at most {obs_dim}, all of the state")


def run_multi_step(config: MultiStepRunConfig, run: Run) -> None:
    """multi-step: both models, in each situation and with each amount of data.

    They learn from the same steps, with as many gradient steps on as large batches: of transitions, or of
    segments of K transitions.

    Rows: metric (the situation), model ("one-step, 500 steps", say), step (k), value (the root of E_k on
    fresh steps, where each dimension is measured in standard deviations of the largest set of data).
    """
    from mbrl_course.buffers import ReplayBuffer
    from mbrl_course.dynamics import DynamicsConfig, DynamicsModel, k_step_errors
    from mbrl_course.multistep import MultiStepConfig, MultiStepModel, multi_step_errors

    task = get_task(config.task)
    data_generator = torch.Generator().manual_seed(run.seed)  # the same data after an interruption
    sizes = (max(config.data_sizes), config.test_steps)
    data, tests = (collect_random(task, size, data_generator)[0] for size in sizes)
    scale = data.obs.std(dim=0)  # [D]

    def segments(size: int, dims: int, source: Batch) -> tuple[Tensor, Tensor, Batch]:
        """Segments of the first `size` steps, s_0 .. s_K and a_0 .. a_{K-1}, and the single steps."""
        part = source.take(slice(size))
        part = part._replace(obs=(part.obs / scale)[:, :dims], next_obs=(part.next_obs / scale)[:, :dims])
        buffer = ReplayBuffer(size, dims, task.action_dim)
        buffer.add(*part)
        # with replacement: four times as many leave out one in fifty
        drawn = buffer.sample_sequences(4 * size, config.num_steps, run.generator)
        return torch.cat([drawn.obs, drawn.next_obs[:, -1:]], dim=1), drawn.action, part

    def one_step(model: DynamicsModel) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda obs, action: model.predict(obs, action)[0]

    todo = [(situation, size) for situation in config.situations for size in config.data_sizes]
    for situation, size in run.units(todo, "models"):
        dims = config.seen if situation == "part of the state" else task.obs_dim
        hidden = config.small_hidden_sizes if situation == "small networks" else config.hidden_sizes
        shared: dict[str, Any] = {"hidden_sizes": hidden, "batch_size": config.batch_size}
        shared["learning_rate"] = config.learning_rate
        obs, actions, single_steps = segments(size, dims, data)
        unseen, unseen_actions, _ = segments(config.test_steps, dims, tests)
        multi = MultiStepModel(
            dims, task.action_dim, MultiStepConfig(num_steps=config.num_steps, **shared), run.generator
        )
        multi.fit(obs, actions, config.num_updates, run.generator, run.progress)
        settings = DynamicsConfig(holdout_fraction=0.0, **shared)  # the other model holds nothing out either
        single = DynamicsModel(dims, task.action_dim, settings, generator=run.generator)
        single.fit(single_steps, num_steps=config.num_updates, generator=run.generator, progress=run.progress)
        with torch.no_grad():
            composed = k_step_errors(one_step(single), unseen, unseen_actions)
        at_once = multi_step_errors(multi, unseen, unseen_actions)
        for model, errors in (("one-step", composed), ("multi-step", at_once)):
            for k, error in enumerate(errors.sqrt().tolist(), start=1):
                run.log(metric=situation, model=f"{model}, {size} steps", step=k, value=error)


_SAC = ("SAC: rollout_lengths=0/0 updates_per_step=1", "SAC, as many updates: rollout_lengths=0/0")
SMOKE: dict[str, Any] = {
    "total_steps": 60,
    "eval_every": 30,
    "num_eval_episodes": 1,
    "start_steps": 30,
    "updates_per_step": 1,
    "hidden_sizes": (16,),
    "batch_size": 16,
    "model_every": 20,
    "model_epochs": 1,
    "model_hidden_sizes": (16,),
    "num_rollouts": 20,
}


def _experiment(
    name: str,
    title: str,
    full: MBPORunConfig,
    laptop: dict[str, Any],
    published: str = "",
    remark: str = "",
    baseline: bool = True,
) -> Experiment[Any]:
    return Experiment(
        name=name,
        week=7,
        title=title,
        function=run_mbpo,
        configs=scales(full, laptop, {**laptop, **SMOKE}),
        published=published,
        remark=remark,
        solved_at=SOLVED_AT.get(full.task),
        baseline=variant_of(full, full.variants[0])[0] if baseline else "",
    )


_SMALL: dict[str, Any] = {
    "hidden_sizes": (64, 64),
    "batch_size": 128,
    "learning_rate": 5e-4,
    "tau": 0.01,
    "initial_temperature": 0.1,
    "start_steps": 250,
    "num_rollouts": 2000,
    "model_every": 125,
    # many small steps per fit: 20 epochs with batches of 256 are only 40 of them at 500 transitions
    "model_epochs": 200,
    "model_batch_size": 32,
    "model_hidden_sizes": (64, 64),
    "ensemble_size": 5,
    "num_elites": 3,
}
"""For tasks with few dimensions: small networks, fast targets, and a model that is fitted to the end."""

_PENDULUM = MBPORunConfig(**_SMALL, total_steps=5000, num_eval_episodes=10, variants=(*_SAC, "MBPO:"))
_INVERTED = replace(
    _PENDULUM,
    task="InvertedPendulum-v5",
    num_eval_episodes=5,
    updates_per_step=10,
    learning_rate=1e-3,
    rollout_lengths=(10, 10),
    variants=(*_SAC, "MBPO, k = 1: rollout_lengths=1/1", "MBPO, k = 10:"),
)
_CARTPOLE = replace(
    _PENDULUM,
    task="cartpole-balance",
    total_steps=400,
    eval_every=50,
    num_eval_episodes=5,
    start_steps=150,
    updates_per_step=8,
    learning_rate=1e-3,
    rollout_lengths=(10, 10),
    num_rollouts=1000,
    model_every=75,
    model_epochs=100,
    variants=(
        *_SAC,
        *(f"k = {k}: rollout_lengths={k}/{k}" for k in (1, 3, 10, 30)),
        *(f"real ratio {share}: real_ratio={share}" for share in ("0", "0.5", "1")),
        *(f"penalty {beta}: penalty={beta}" for beta in ("0.5", "2")),
    ),
)
"""k = 10 is the preset; what else is compared differs from it in one setting."""
_HOPPER = MBPORunConfig(
    task="Hopper-v5",
    total_steps=125_000,
    eval_every=1000,
    start_steps=5000,
    updates_per_step=20,
    target_entropy=-1 / 3,  # -1 for all three actions
    rollout_lengths=(1, 15),
    rollout_steps=(20_000, 100_000),
    num_rollouts=100_000,
    buffer_capacity=125_000,
    model_hidden_sizes=(200,) * 4,
    variants=(*_SAC, "MBPO:"),
)
_CHEETAH = MBPORunConfig(
    task="cheetah",
    total_steps=50_000,
    eval_every=5000,
    start_steps=5000,
    updates_per_step=1,
    batch_size=1500,
    initial_temperature=0.1,
    model_every=1000,
    num_rollouts=5000,
    # the share that one real step has beside one rollout, as in CS285
    variants=(
        "SAC: rollout_lengths=0/0",
        "Dyna: rollout_lengths=1/1 real_ratio=0.5",
        "MBPO: rollout_lengths=10/10 real_ratio=0.1",
    ),
)
_ABLATIONS = {
    "real-ratio": ("share of real transitions in a batch", ("0", "0.05", "0.2", "0.5", "1"), "real_ratio"),
    "penalty": ("price of the members' disagreement", ("0", "0.1", "0.5", "2"), "penalty"),
    "schedule": ("length of the rollouts", ("1/1", "5/5", "1/5", "15/15"), "rollout_lengths"),
}

_PARETO = replace(
    _INVERTED,
    total_steps=1500,
    eval_every=125,
    variants=(
        "SAC, 10 updates: rollout_lengths=0/0",
        "SAC, 20 updates: rollout_lengths=0/0 updates_per_step=20",
        "k = 10, 10 updates:",
        *(f"k = 10, {n} updates: updates_per_step={n}" for n in (2, 5, 20)),
        *(f"k = {k}: rollout_lengths={k}/{k}" for k in (1, 3, 20)),
        "3 members: ensemble_size=3 num_elites=2",
        "model every 250: model_every=250",
        "50 passes of the model: model_epochs=50",
    ),
)

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    _experiment(
        "mbpo-cartpole", "Balancing cart-pole: SAC, rollout lengths, real ratios and penalties", _CARTPOLE, {}
    ),
    _experiment(
        "mbpo-pendulum",
        "Pendulum: MBPO against SAC",
        _PENDULUM,
        {"total_steps": 3000},
        remark="with as many updates SAC does as well: on this small task they decide, not what is imagined",
    ),
    _experiment(
        "mbpo-inverted-pendulum",
        "InvertedPendulum-v5: MBPO against SAC, from an untrained model to 1000",
        _INVERTED,
        {"total_steps": 2000, "num_eval_episodes": 3},
        published="MBRL-Lib: not solved after 2500 steps and 8 minutes",
        remark="with as many updates SAC does as well: on this small task they decide, not what is imagined",
    ),
    Experiment(
        name="pareto-mbpo",
        week=7,
        title="InvertedPendulum-v5: what MBPO earns for how much computing",
        function=run_mbpo,
        configs=scales(_PARETO, {"num_eval_episodes": 3}, {**SMOKE, "variants": _PARETO.variants[:3]}),
        solved_at=SOLVED_AT["InvertedPendulum-v5"],
        preset="k = 10, 10 updates",
    ),
    _experiment(
        "mbpo-hopper",
        "Hopper-v5: MBPO against SAC",
        _HOPPER,
        {
            **_SMALL,
            "total_steps": 10_000,
            "start_steps": 1000,
            "updates_per_step": 5,
            "target_entropy": -1.0,
            "buffer_capacity": 100_000,
            "rollout_steps": (2000, 10_000),
        },
        published="1000 at 40,000 steps, 3000 at 70,000; SAC needs several times more (Janner et al., 2019)",
        remark="the first 10,000 steps with a quarter of the updates neither confirm nor contradict it; "
        "`--scale full` is the paper's setting, and takes hours without a GPU",
    ),
    *(
        _experiment(
            f"mbpo-{name}",
            f"Pendulum, MBPO: {what}",
            replace(_PENDULUM, rollout_steps=(500, 2000), variants=(_SAC[1], *one_field(field, *values))),
            {"total_steps": 2000, "num_eval_episodes": 5},
        )
        for name, (what, values, field) in _ABLATIONS.items()
    ),
    Experiment(
        name="multi-step",
        week=7,
        title="Pendulum: predicting k steps at once, or one step k times",
        function=run_multi_step,
        configs=scales(
            MultiStepRunConfig(),
            {},
            {"data_sizes": (100, 200), "num_updates": 20, "test_steps": 200, "num_steps": 3},
        ),
        objective=Objective("value", lower=True, where="model.str.startswith('multi-step')"),
    ),
    _experiment(
        "q6",
        "Half-cheetah: SAC, Dyna (rollouts of 1) and MBPO (rollouts of 10)",
        _CHEETAH,
        {
            "total_steps": 8000,
            "eval_every": 1000,
            "start_steps": 1000,
            "updates_per_step": 4,
            "hidden_sizes": (128, 128),
            "learning_rate": 5e-4,
            "batch_size": 256,
            "target_entropy": -0.5,
            "model_hidden_sizes": (128, 128),
            "model_every": 500,
            "model_epochs": 30,
            "num_rollouts": 2000,
        },
        published="rising in this order, where SAC makes a fifth of the updates; at least 1000 with rollouts "
        "of 10 (CS285, homework 4, problem 6)",
        remark="here all three make the same number of updates",
        baseline=False,  # in 8000 steps SAC has learned nothing that others could be measured by
    ),
)
