"""Week 4: what horizon, search and ensemble are worth (CS285, homework 4, problem 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mbrl_course.experiments.runner import Experiment, Run
from mbrl_course.experiments.variants import Variants, each_variant, one_field, scales
from mbrl_course.experiments.week02 import MPCConfig, run_mpc


@dataclass(frozen=True)
class MPCVariantsConfig(MPCConfig, Variants):
    """The on-policy loop of week 2, with variants of its settings."""

    def __post_init__(self) -> None:
        """Refuses what either refuses."""
        MPCConfig.__post_init__(self)
        Variants.__post_init__(self)


def run_mpc_variants(config: MPCVariantsConfig, run: Run) -> None:
    """q4: the on-policy loop with each variant; rows as in `week02.run_mpc`, with the column variant."""
    for name, variant, _ in each_variant(config, run, lambda variant: None):
        run_mpc(variant, run, variant=name)


_Q4 = MPCVariantsConfig(
    task="reacher7",
    num_iterations=15,
    steps_per_iteration=800,
    gradient_steps=1000,
    variants=(
        *one_field("horizon", "5", "15", "30"),
        *one_field("num_sequences", "100", "1000"),
        *one_field("ensemble_size", "1", "3", "5"),
    ),
)

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="q4",
        week=4,
        title="Seven-joint reacher: horizon, number of action sequences, members of the ensemble",
        function=run_mpc_variants,
        configs=scales(
            _Q4,
            {"num_iterations": 4, "gradient_steps": 500, "num_sequences": 300, "hidden_sizes": (128, 128)},
            {
                "num_iterations": 1,
                "initial_steps": 200,
                "steps_per_iteration": 20,
                "gradient_steps": 5,
                "hidden_sizes": (16,),
                "num_sequences": 10,
                "variants": ("horizon=2", "num_sequences=5", "ensemble_size=1"),
            },
        ),
        published="horizon 15 best, then 30, then 5; sequences matter little; 5 members, then 3, then 1",
    ),
)
