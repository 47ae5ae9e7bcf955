"""Networks: several multi-layer perceptrons side by side for dynamics models, single ones for agents."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}


class EnsembleMLP(nn.Module):
    """E multi-layer perceptrons of the same shape, evaluated side by side.

    The weights of a layer are one tensor [E, in, out], so that a layer of the whole ensemble is one batched
    matrix product. No gradient flows from one member to another.
    """

    def __init__(
        self,
        ensemble_size: int,
        input_dim: int,
        output_dim: int,
        hidden_sizes: tuple[int, ...],
        activation: str = "silu",
        generator: torch.Generator | None = None,
    ) -> None:
        """Networks with random weights, uniform within 1 / sqrt(fan-in) as in `torch.nn.Linear`."""
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        sizes = (input_dim, *hidden_sizes, output_dim)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            weight = torch.empty(ensemble_size, fan_in, fan_out).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(ensemble_size, 1, fan_out).uniform_(-bound, bound, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Outputs of the members for inputs of their own, or shared by all.

        Args:
            x: [E, N, in], or [N, in] for all members alike.
            members: numbers of the members to use, [E]; all of them by default.

        Returns:
            [E, N, out].
        """
        if x.dim() == 2:
            x = x.expand(len(self.weights[0]) if members is None else len(members), *x.shape)  # [E, N, in]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if members is not None:
                weight, bias = weight[members], bias[members]
            x = torch.baddbmm(bias, x, weight)  # [E, N, out]
            if layer < last:
                x = self.activation(x)
        return x


def orthogonal_mlp(
    sizes: tuple[int, ...], last_gain: float, generator: torch.Generator | None = None
) -> nn.Sequential:
    """A tanh network with orthogonal weights and zero biases, the last layer scaled by `last_gain`."""
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        layer = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(layer.weight, last_gain if last else 2**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)


def relu_mlp(sizes: tuple[int, ...], generator: torch.Generator | None = None) -> nn.Sequential:
    """A ReLU network with weights and biases uniform within 1 / sqrt(fan-in)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out)
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
