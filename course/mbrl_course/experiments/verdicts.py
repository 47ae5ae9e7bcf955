"""The ten claims of week 8's report, and what `clinic-pets` and `clinic-mbpo` have to say about each.

The score of a run was chosen before any change was tried: the mean over all its evaluations, that is the area
under its learning curve. The claims are about learning faster, and the last return alone is that of a single
evaluation. Returns are put on a scale on which the random policy has 0 and a good one 1, so that a gain can
be told in percent where returns are negative; and what is worse than random counts as 0, since how far a
cart drove off in one bad trial must not outweigh everything else.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor

Score = Literal["area", "final"]


class Returns(NamedTuple):
    """Two returns of a task that are 0 and 1 on the scale of the scores."""

    random: float
    good: float


RETURNS = {
    "clinic-pets": Returns(random=-272.0, good=147.0),
    "clinic-mbpo": Returns(random=-1242.0, good=-150.0),
}
"""Of the cart-pole swing-up: 100 episodes of the random policy, and CEM on the true dynamics with 1000
sequences a plan. Of the pendulum: 100 episodes of the random policy, and what a trained policy earns."""


class Claim(NamedTuple):
    """One claim of the report, as one comparison.

    Attributes:
        number: in the report.
        what: is changed.
        promised: gain, in percent of the score without the change, from and to.
        experiment: in which it is put to the test.
        variant: with the change.
        against: the variant without it.
    """

    number: int
    what: str
    promised: tuple[int, int]
    experiment: str
    variant: str
    against: str


_PETS, _MBPO = "clinic-pets", "clinic-mbpo"
MIN_SEEDS = 5
"""Fewer seeds get no verdict: of one or two, the bootstrap knows no scatter."""
CLAIMS = (
    Claim(1, "small-gain Xavier initialisation", (15, 25), _PETS, "small gain", "PETS"),
    Claim(1, "small-gain Xavier initialisation", (15, 25), _MBPO, "small gain", "MBPO"),
    Claim(2, "value-dependent exploration noise", (20, 40), _MBPO, "noise where critics disagree", "MBPO"),
    Claim(3, "ensemble mean, not one sample", (40, 60), _PETS, "ensemble mean", "one sample"),
    Claim(3, "ensemble mean, not one sample", (40, 60), _MBPO, "ensemble mean", "MBPO"),
    Claim(4, "warm start repeating the last action", (25, 35), _PETS, "PETS", "filled with zero"),
    Claim(5, "reward shaping, naive", (15, 25), _PETS, "naive shaping", "PETS"),
    Claim(5, "reward shaping, naive", (15, 25), _MBPO, "naive shaping", "MBPO"),
    Claim(5, "reward shaping, potential-based", (15, 25), _PETS, "potential-based shaping", "PETS"),
    Claim(5, "reward shaping, potential-based", (15, 25), _MBPO, "potential-based shaping", "MBPO"),
    Claim(6, "batch 512, not 256", (10, 20), _PETS, "batch 512", "PETS"),
    Claim(6, "batch 512, not 256", (10, 20), _MBPO, "batch 512", "MBPO"),
    Claim(7, "learning-rate schedule, linear", (8, 15), _MBPO, "linear schedule", "MBPO"),
    Claim(7, "learning-rate schedule, cosine", (8, 15), _MBPO, "cosine schedule", "MBPO"),
    Claim(8, "prioritized replay", (20, 30), _MBPO, "prioritized", "MBPO"),
    Claim(9, "50 policy updates, not 20", (30, 50), _MBPO, "50 updates", "MBPO"),
    Claim(10, "oracle rewards, not learned ones", (40, 60), _PETS, "PETS", "learned rewards"),
    Claim(10, "oracle rewards, not learned ones", (40, 60), _MBPO, "MBPO", "learned rewards"),
)
"""In the order of the report. Where a claim recommends what the agent does anyway, the agent without it is a
variant."""


def run_scores(name: str, rows: pd.DataFrame, score: Score = "area") -> Tensor:
    """One score for each seed of one variant, as the text above this module says.

    Args:
        name: "clinic-pets" or "clinic-mbpo".
        rows: of that variant.
        score: "area", the mean over all evaluations, or "final", the last one. The random trial is none.

    Returns:
        Scores, 0 like the random policy and 1 like a good one, in the order of the seeds, [seeds, 1].
    """
    from mbrl_course.clinic import normalized_scores

    if "trial" in rows.columns:
        rows = rows[rows["trial"] > 0]
    scale = RETURNS[name]
    scores = []
    for _, run in rows.groupby("seed"):
        returns = torch.tensor(run["eval_return"].to_numpy(), dtype=torch.float64)[:, None]  # [P, 1]
        ends = torch.tensor([scale.random]), torch.tensor([scale.good])
        values = normalized_scores(returns, *ends).clamp(min=0)[:, 0]  # [P]
        scores.append(values.mean() if score == "area" else values[-1])
    return torch.stack(scores)[:, None]  # [seeds, 1]


def verdict_table(
    name: str, logs: pd.DataFrame, score: Score = "area", *, confidence: float = 0.95
) -> pd.DataFrame:
    """What became of each claim: real, not shown or harmful, and what it costs.

    Args:
        name: "clinic-pets" or "clinic-mbpo".
        logs: rows of the experiment; claims whose variants are not among them are left out, and so are runs
            with fewer evaluations than the others: they are not finished.
        score: see `run_scores`.
        confidence: of the intervals; "real" and "harmful" are said where they leave out 0.

    Returns:
        One row for each claim: number, claim, promised (percent), variant, against, seeds (the fewer of the
        two), score and score_against (IQMs), gain, low and high (of the difference of the IQMs, in percent of
        score_against), better (the probability of improvement), verdict ("too few seeds" where there are
        fewer than `MIN_SEEDS`), cpu_seconds (of a run with the
        change, the median), cost (how many times those of a run without it).

    Raises:
        ValueError: there are no claims about the experiment, or the score is another.
    """
    from mbrl_course.clinic import (
        interquartile_mean,
        iqm_improvement,
        probability_of_improvement,
        verdict,
    )

    if name not in RETURNS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(RETURNS)}")
    if score not in ("area", "final"):
        raise ValueError(f"score is {score!r}, expected 'area' or 'final'")
    evaluations = logs.groupby(["variant", "seed"])["eval_return"].transform("size")
    logs = logs[evaluations == evaluations.max()]
    groups = {variant: rows for variant, rows in logs.groupby("variant", sort=False)}
    table = []
    for claim in CLAIMS:
        if claim.experiment != name or not {claim.variant, claim.against} <= set(groups):
            continue
        new, old = groups[claim.variant], groups[claim.against]
        x, y = run_scores(name, new, score), run_scores(name, old, score)
        generator = torch.Generator().manual_seed(0)  # the same table each time
        change = iqm_improvement(x, y, confidence=confidence, generator=generator)
        said = verdict(change) if min(len(x), len(y)) >= MIN_SEEDS else "too few seeds"
        before = float(interquartile_mean(y))
        low, high = claim.promised
        row: dict[str, object] = {
            "number": claim.number,
            "claim": claim.what,
            "promised": f"+{low} to {high}",
        }
        row |= {"variant": claim.variant, "against": claim.against, "seeds": min(len(x), len(y))}
        row |= {"score": round(float(interquartile_mean(x)), 3), "score_against": round(before, 3)}
        for column, value in zip(("gain", "low", "high"), change, strict=True):
            row[column] = round(100 * float(value) / before, 1) if before > 0 else float("nan")
        seconds, seconds_against = _cpu_seconds(new), _cpu_seconds(old)
        row |= {"better": round(float(probability_of_improvement(x, y)), 2), "verdict": said}
        row |= {"cpu_seconds": round(seconds, 1), "cost": round(seconds / max(seconds_against, 1e-9), 2)}
        table.append(row)
    return pd.DataFrame(table)


def _cpu_seconds(rows: pd.DataFrame) -> float:
    """What a run of a variant takes, the median over seeds."""
    return float(rows.groupby("seed")["cpu_seconds"].max().median())
