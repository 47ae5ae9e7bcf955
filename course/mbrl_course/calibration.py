"""Week 4: is a predicted uncertainty worth anything?

A model is calibrated if what it gives a probability of 90 % happens in 90 % of the cases. And its epistemic
variance is useful if it is large where the model is wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def interval_coverage(mean: Tensor, std: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """How often the truth lies in the central interval that a Gaussian prediction gives each probability.

    Args:
        mean: predicted, [...].
        std: predicted standard deviation, [...].
        target: truth, [...].
        levels: probabilities p in (0, 1), [L].

    Returns:
        Share of the targets within mean +- z(p) std, [L]; equal to `levels` where the model is calibrated.

    Raises:
        ValueError: mean, std and target differ in shape.
    """
    if not mean.shape == std.shape == target.shape:
        shapes = [list(x.shape) for x in (mean, std, target)]
        raise ValueError(f"mean, std and target have the shapes {shapes}, expected all the same")
    z = math.sqrt(2) * torch.erfinv(levels.double())  # [L], |N(0, 1)| < z has probability p
    error = ((target - mean).abs() / std).flatten().double()  # [M]
    return (error.unsqueeze(0) <= z.unsqueeze(1)).double().mean(dim=1)  # [L]


def expected_calibration_error(mean: Tensor, std: Tensor, target: Tensor, num_levels: int = 19) -> float:
    """Mean of |coverage(p) - p| over evenly spaced p in (0, 1), of central intervals: 0 is perfect.

    After Kuleshov et al., 2018, who square the gaps and take one-sided intervals.

    Args:
        mean: predicted, [...].
        std: predicted standard deviation, [...].
        target: truth, [...].
        num_levels: how many p.

    Returns:
        A number in [0, 1].
    """
    levels = torch.arange(1, num_levels + 1) / (num_levels + 1)  # [L]
    return float((interval_coverage(mean, std, target, levels) - levels).abs().mean())


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of x [N] and y [N]: of epistemic variance and actual error, say.

    It asks whether larger goes with larger, whatever the units. Ties get their mean rank.

    Returns:
        A number in [-1, 1]; NaN where all values of x or of y are the same.
    """
    ranks = []
    for values in (x.flatten().double(), y.flatten().double()):
        _, group, count = values.unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0)  # ranks of a group of ties end here
        ranks.append((last - (count - 1) / 2)[group])
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
