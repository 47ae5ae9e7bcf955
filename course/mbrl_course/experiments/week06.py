"""Week 6: Dyna-PPO against PPO. Does imagined practice help, and what decides it?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import Policy, collect, evaluate_together
from mbrl_course.experiments.runner import Experiment, Run
from mbrl_course.experiments.solved import SOLVED_AT
from mbrl_course.experiments.variants import Variants, each_variant, ledger, one_field, scales, settings_of
from mbrl_course.experiments.week05 import PETSTrialsConfig, run_pets
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.dyna_ppo import DynaPPO, DynaPPOConfig
    from mbrl_course.ensembles import GaussianEnsemble
    from mbrl_course.learned_termination import LearnedTermination

TEST_STEPS, TEST_SEQUENCES = 500, 200
ERROR_STEPS = (1, 5, 10)
"""Fresh real steps that the model is tested on, stretches of them, and the k of E_k."""


@dataclass(frozen=True)
class DynaRunConfig(Variants):
    """How long Dyna-PPO learns, and how it is judged; the other fields are those of `dyna_ppo.DynaPPOConfig`.

    Attributes:
        task: the task.
        total_steps: real steps, rounded up to whole batches.
        eval_every: real steps between two evaluations, a multiple of a batch.
        num_eval_episodes: of each of them, with the most likely actions.
        use_model: without a model this is PPO.
        match_updates: PPO takes as many gradient steps per real batch as Dyna-PPO would with the same
            settings, by more passes through the batch: what practice alone would do, without imagination.
        learn_termination: learn when an episode ends, instead of using the task's function.
    """

    task: str = "cartpole"
    total_steps: int = 15_360
    eval_every: int = 1024
    num_eval_episodes: int = 10
    use_model: bool = True
    match_updates: bool = False
    num_envs: int = 8
    num_steps: int = 64
    num_epochs: int = 10
    minibatch_size: int = 128
    learning_rate: float = 1e-3
    anneal: bool = False
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coef: float = 0.005
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden_sizes: tuple[int, ...] = (64, 64)
    ensemble_size: int = 5
    model_hidden_sizes: tuple[int, ...] = (64, 64)
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    model_epochs: int = 10
    learn_reward: bool = False
    learn_termination: bool = False
    buffer_capacity: int = 10_000
    model_start: int = 1000
    imag_batches: int = 5
    imag_rollouts: int = 128
    imag_horizon: int = 5
    imag_epochs: int | None = None
    gate: float = math.inf
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, by the field's name; `DynaPPOConfig` checks the rest."""
        super().__post_init__()
        need_at_least(self, 1, "total_steps", "num_eval_episodes", "num_envs", "num_steps", "minibatch_size")
        batch = self.num_envs * self.num_steps
        if self.eval_every < 1 or self.eval_every % batch:
            expected = f"a multiple of num_envs x num_steps = {batch}"
            raise ValueError(f"eval_every is {self.eval_every}, expected {expected}")
        if self.match_updates and self.use_model:
            raise ValueError(
                "match_updates is true, expected use_model false: it is a control without a model"
            )

    def settings(self) -> DynaPPOConfig:
        """The settings of the agent."""
        from mbrl_course.dyna_ppo import DynaPPOConfig

        return settings_of(DynaPPOConfig, self, num_epochs=self.matched_epochs())

    def learned_end(self, seed: int) -> LearnedTermination | None:
        """What learns when an episode ends, untrained; None where the task says it."""
        if not (self.learn_termination and self.use_model):
            return None
        from mbrl_course.learned_termination import LearnedTermination

        own_seed = independent_seeds(seed, 2)[1]  # the first one is the model's
        generator = torch.Generator().manual_seed(own_seed)
        return LearnedTermination(get_task(self.task).obs_dim, generator=generator)

    def matched_epochs(self) -> int:
        """Passes through a real batch, those of `match_updates` included."""
        if not self.match_updates:
            return self.num_epochs
        real = math.ceil(self.num_envs * self.num_steps / self.minibatch_size)
        imagined = math.ceil(self.imag_rollouts * self.imag_horizon / self.minibatch_size)
        extra = self.imag_batches * (self.imag_epochs or self.num_epochs) * imagined / real
        return self.num_epochs + round(extra)


def model_errors(model: GaussianEnsemble, task: Task, policy: Policy, seed: int) -> list[float]:
    """E_k of the mean prediction for `ERROR_STEPS`, on fresh real steps of `policy`.

    NaN where no episode was long enough. Changes of each dimension are measured in standard deviations of
    what the model was fitted to: E_1 = 1 is as bad as predicting the mean change each time.
    """
    from mbrl_course.buffers import ReplayBuffer
    from mbrl_course.dynamics import k_step_errors

    generator = torch.Generator().manual_seed(seed)  # the same starts for each checkpoint and variant
    data = collect(task, policy, TEST_STEPS, generator).data
    buffer = ReplayBuffer(TEST_STEPS, task.obs_dim, task.action_dim)
    buffer.add(*data)
    scale = model.target_normalizer.std[: task.obs_dim]  # [D]

    def predict(obs: Tensor, action: Tensor) -> Tensor:
        return model.predict(obs * scale, action, model.elites).obs.mean(dim=0) / scale  # [B, D]

    errors = []
    for k in ERROR_STEPS:
        try:
            stretches = buffer.sample_sequences(TEST_SEQUENCES, k, generator)
        except ValueError:  # no episode was that long
            errors.append(math.nan)
            continue
        obs = torch.cat([stretches.obs, stretches.next_obs[:, -1:]], dim=1) / scale  # [B, k + 1, D]
        errors.append(float(k_step_errors(predict, obs, stretches.action)[-1]))
    return errors


def run_dyna_ppo(config: DynaRunConfig, run: Run) -> None:
    """dyna-ppo-*: Dyna-PPO, or PPO, with each variant.

    Rows: variant, eval_return (mean over the episodes of an evaluation), the ledger, and E_1, E_5, E_10 (see
    `model_errors`; NaN where there is no model).
    """
    from mbrl_course.dyna_ppo import DynaPPO

    for name, variant, settings in each_variant(config, run):
        task = get_task(variant.task)
        agent = DynaPPO(task, settings, run.seed, variant.learned_end(run.seed))
        if (state := run.restore()) is not None:
            agent.load_state_dict(state)

        def after_batch(
            agent: DynaPPO, name: str = name, variant: DynaRunConfig = variant, task: Task = task
        ) -> None:
            spent = agent.ppo.counters
            if spent.real_steps % variant.eval_every and spent.real_steps < variant.total_steps:
                return
            costs = ledger(
                run, spent.real_steps, spent.imagined_steps, spent.gradient_steps, spent.model_updates
            )
            with run.not_counted():
                errors = [math.nan] * len(ERROR_STEPS)
                if spent.model_updates:
                    errors = model_errors(agent.model, task, agent.act, run.seed)
                returns = evaluate_together(task, agent.act, variant.num_eval_episodes, run.seed)
                named = {f"E_{k}": error for k, error in zip(ERROR_STEPS, errors, strict=True)}
                run.log(variant=name, eval_return=returns.mean(), **costs, **named)
                run.checkpoint(agent.state_dict())

        agent.train(variant.total_steps, after_batch)


_PPO = (
    "PPO: use_model=false",
    "PPO, as many updates: use_model=false match_updates=true",
)
_IMAGINED_ROWS = 640
_SMOKE: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 8,
    "num_epochs": 2,
    "total_steps": 256,
    "eval_every": 128,
    "num_eval_episodes": 1,
    "model_start": 1,
    "hidden_sizes": (16,),
    "model_hidden_sizes": (16,),
    "model_epochs": 1,
    "imag_batches": 1,
    "imag_rollouts": 8,
}


def _experiment(
    name: str, title: str, *variants: str, published: str = "", remark: str = "", **changes: Any
) -> Experiment[Any]:
    full = DynaRunConfig(variants=variants, num_eval_episodes=20, **changes)
    return Experiment(
        name=name,
        week=6,
        title=f"CartPole-v1, Dyna-PPO: {title}",
        function=run_dyna_ppo,
        configs=scales(full, {"num_eval_episodes": 10}, _SMOKE),
        published=published,
        remark=remark,
        solved_at=SOLVED_AT["cartpole"],
        baseline=_PPO[0].split(":")[0],
    )


_PARETO = DynaRunConfig(
    imag_horizon=20,
    total_steps=6144,
    eval_every=512,
    num_eval_episodes=20,
    variants=(
        _PPO[0],
        "PPO, 60 epochs: use_model=false num_epochs=60",
        "horizon 20:",
        *(f"horizon {h}: imag_horizon={h}" for h in (5, 40)),
        *(f"{b} imagined batches: imag_batches={b}" for b in (2, 10)),
        *(f"{n} rollouts: imag_rollouts={n}" for n in (32, 64)),
        "2 members: ensemble_size=2",
        "3 passes of the model: model_epochs=3",
        "small real batches: num_steps=16 model_start=256",
    ),
)
_MPC = PETSTrialsConfig(
    task="cartpole",
    num_trials=20,
    hidden_sizes=(64, 64),
    variants=("mean over members: robust=mean", "worst member: robust=worst"),
)
EXPERIMENTS: tuple[Experiment[Any], ...] = (
    _experiment(
        "dyna-ppo-cartpole",
        "against PPO, and against PPO with as many gradient steps",
        *_PPO,
        "Dyna-PPO:",
        "PPO, as many updates as with horizon 20: use_model=false match_updates=true imag_horizon=20",
        "Dyna-PPO, horizon 20: imag_horizon=20",
        published="no gain over PPO in a plain public implementation",
        remark="nor do imagined rollouts of 5 steps save real steps until 475 here; those of 20 save most",
    ),
    _experiment(
        "dyna-ppo-small-batches",
        "where a model helps, real batches of 128 steps filled up with imagined ones",
        "PPO: use_model=false num_steps=64",
        "PPO, as many updates as with horizon 5: use_model=false match_updates=true num_steps=64",
        "PPO, small batches: use_model=false",
        "PPO, small batches, as many updates: use_model=false match_updates=true",
        "Dyna-PPO, small batches, horizon 5:",
        "Dyna-PPO, small batches, horizon 20: imag_horizon=20",
        "Dyna-PPO, large batches, horizon 20: imag_horizon=20 num_steps=64",
        num_steps=16,
        model_start=256,
        total_steps=5120,
        eval_every=512,
    ),
    _experiment(
        "dyna-ppo-horizon",
        f"imagined horizon, {_IMAGINED_ROWS} imagined steps in each batch",
        _PPO[0],
        *(f"horizon {h}: imag_horizon={h} imag_rollouts={_IMAGINED_ROWS // h}" for h in (1, 3, 5, 10, 20)),
    ),
    _experiment(
        "dyna-ppo-regimes",
        "passes of the model through its data, and imagined batches",
        _PPO[0],
        *(f"{m}/{i}: model_epochs={m} imag_batches={i}" for m, i in ((1, 5), (3, 10), (5, 20))),
    ),
    _experiment(
        "dyna-ppo-buffer",
        "real transitions that the model is fitted to",
        _PPO[0],
        *one_field("buffer_capacity", "1000", "5000", "10000", "50000"),
    ),
    _experiment(
        "dyna-ppo-noise",
        "a model that is made worse on purpose",
        _PPO[0],
        *one_field("noise", "0", "0.03", "0.1", "0.3", "1"),
    ),
    _experiment(
        "dyna-ppo-gate",
        "the epistemic variance up to which the model is trusted",
        _PPO[0],
        *one_field("gate", "0.01", "0.05", "0.1", "0.2", "inf"),
        remark="the strictest gate keeps back 3 % of the imagined steps, the others next to none",
    ),
    _experiment(
        "dyna-ppo-ensemble",
        "members of the ensemble",
        _PPO[0],
        *one_field("ensemble_size", "1", "3", "5", "10"),
    ),
    Experiment(
        name="pareto-dyna-ppo",
        week=6,
        title="CartPole-v1: what Dyna-PPO earns for how much computing",
        function=run_dyna_ppo,
        configs=scales(_PARETO, {"num_eval_episodes": 10}, {**_SMOKE, "variants": _PARETO.variants[:3]}),
        solved_at=SOLVED_AT["cartpole"],
        preset="horizon 20",
    ),
    Experiment(
        name="dyna-ppo-mpc",
        week=6,
        title="CartPole-v1: planning in the ensemble with CEM, for its mean or its worst member",
        function=run_pets,
        configs=scales(
            _MPC,
            {"num_trials": 8},
            {"num_trials": 1, "hidden_sizes": (16,), "max_epochs": 2, "population_size": 20, "horizon": 3},
        ),
        solved_at=SOLVED_AT["cartpole"],
    ),
)
