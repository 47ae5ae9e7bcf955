"""Week 7: MBPO against SAC at equal numbers of real steps, and what its settings do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbrl_course.envs import get_task
from mbrl_course.evaluation import evaluate
from mbrl_course.experiments.runner import Experiment, Run
from mbrl_course.experiments.variants import Variants, each_variant, ledger, scales, settings_of

if TYPE_CHECKING:  # in a class this may be the student's own, so it is imported when needed
    from mbrl_course.mbpo import MBPO


@dataclass(frozen=True)
class MBPORunConfig(Variants):
    """How long MBPO, or SAC, learns, and how it is judged; the other fields are those of `mbpo.MBPOConfig`.

    Attributes:
        task: the task.
        total_steps: real steps.
        eval_every: real steps between two evaluations.
        num_eval_episodes: of each of them, with the policy's mode.
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

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name; the rest is checked by `MBPOConfig`."""
        super().__post_init__()
        for name in ("total_steps", "eval_every", "num_eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


def run_mbpo(config: MBPORunConfig, run: Run) -> None:
    """mbpo-*, q6: MBPO with each variant; rollouts of length 0 are SAC, and of length 1 Dyna.

    Rows: variant, eval_return (mean over the episodes of an evaluation), and the ledger.
    """
    from mbrl_course.mbpo import MBPO, MBPOConfig

    task = get_task(config.task)
    for name, variant in each_variant(config, run):
        agent = MBPO(task, settings_of(MBPOConfig, variant), run.seed)
        if (state := run.restore()) is not None:
            agent.load_state_dict(state)

        def after_step(agent: MBPO, name: str = name, variant: MBPORunConfig = variant) -> None:
            spent = agent.counters
            if spent.real_steps % variant.eval_every and spent.real_steps < variant.total_steps:
                return
            costs = ledger(
                run, spent.real_steps, spent.imagined_steps, spent.gradient_steps, spent.model_updates
            )
            with run.not_counted():
                returns = evaluate(task, agent.act, variant.num_eval_episodes, run.seed, progress=False)
                run.log(variant=name, eval_return=returns.mean(), **costs)
                run.checkpoint(agent.state_dict())

        agent.train(variant.total_steps, after_step, progress=run.progress)


_SAC = ("SAC: rollout_lengths=0/0 updates_per_step=1", "SAC, as many updates: rollout_lengths=0/0")
_SMOKE: dict[str, Any] = {
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
    solved_at: float | None = None,
) -> Experiment[Any]:
    configs = scales(full, laptop, {**laptop, **_SMOKE})
    return Experiment(name, 7, title, run_mbpo, configs, published, solved_at)


_PENDULUM = MBPORunConfig(
    total_steps=10_000,
    variants=(*_SAC, "MBPO:"),
    num_rollouts=400 * 25,
)
EXPERIMENTS: tuple[Experiment[Any], ...] = (
    _experiment("mbpo-pendulum", "Pendulum: MBPO against SAC", _PENDULUM, {}),
)
