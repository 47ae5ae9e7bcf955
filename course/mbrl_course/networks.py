"""Networks: several multi-layer perceptrons side by side for dynamics models, single ones for agents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from mbrl_course.products import Linear, by_onednn, onednn_layer, warn_of_emulation

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}


PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
"""What predictions may be rounded to; training always keeps the type of the weights, float32."""

LARGE_LAYER = 200_000
"""Numbers in one member's hidden layer, beyond which members are evaluated one after another: their layers no
longer fit into a core's cache side by side, and threads would share out an odd number of members unevenly."""


def batched_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of E members: x [E, N, in], weight [E, in, out], bias [E, 1, out] -> [E, N, out]."""
    return torch.baddbmm(bias, x, weight)


PLAIN_LAYERS = {batched_layer}
"""Layers that oneDNN may compute instead, where it is faster; a layer of a student's own is always used."""


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
        layer: Callable[[Tensor, Tensor, Tensor], Tensor] = batched_layer,
    ) -> None:
        """Networks with random weights, uniform within 1 / sqrt(fan-in) as in `torch.nn.Linear`.

        Args:
            ensemble_size: E.
            input_dim: width of the inputs.
            output_dim: width of the outputs.
            hidden_sizes: width of each hidden layer.
            activation: "silu", "relu" or "tanh".
            generator: source of the random weights.
            layer: maps inputs [E, N, in], weights [E, in, out] and biases [E, 1, out] to [E, N, out]; one
                batched matrix product by default. If it is one of `PLAIN_LAYERS`, large products are made by
                oneDNN on processors where that is faster (`mbrl_course.products`).

        Raises:
            ValueError: a hidden layer has no positive width.
        """
        super().__init__()
        check_widths(hidden_sizes)
        self.activation = ACTIVATIONS[activation]
        self.layer = layer
        sizes = (input_dim, *hidden_sizes, output_dim)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            weight = torch.empty(ensemble_size, fan_in, fan_out).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(ensemble_size, 1, fan_out).uniform_(-bound, bound, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
        self._rounded: tuple[object, list[Tensor], list[Tensor]] | None = None

    def forward(
        self, x: Tensor, members: Tensor | None = None, precision: torch.dtype | None = None
    ) -> Tensor:
        """Outputs of the members for inputs of their own, or shared by all.

        Args:
            x: [E, N, in], or [N, in] for all members alike.
            members: numbers of the members to use, [E]; all of them by default.
            precision: `torch.bfloat16` rounds inputs, weights and hidden layers to 8 significant bits, which
                is a few times as fast on processors that have instructions for it; on others it is many times
                slower, and a warning says so. For inference only; by default nothing is rounded.

        Returns:
            [E, N, out], of the type of `x`.

        Raises:
            ValueError: inputs for another number of members.
        """
        weights, biases = self._parameters_in(precision)
        if members is not None:
            weights, biases = [w[members] for w in weights], [b[members] for b in biases]
        if x.dim() == 2:
            x = x.expand(len(weights[0]), *x.shape)  # [E, N, in]
        if len(x) != len(weights[0]):
            raise ValueError(f"x has inputs for {len(x)} members, expected {len(weights[0])}")
        kind = x.dtype
        if precision is not None:
            x = x.to(precision)
        large = x.is_cpu and x.shape[1] * weights[0].shape[-1] > LARGE_LAYER
        if large and not torch.is_grad_enabled():
            one_by_one = [
                self._layers(x[e : e + 1], [w[e : e + 1] for w in weights], [b[e : e + 1] for b in biases])
                for e in range(len(x))
            ]
            return torch.cat(one_by_one).to(kind)  # [E, N, out]
        return self._layers(x, weights, biases).to(kind)

    def _layers(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        last = len(weights) - 1
        plain = self.layer in PLAIN_LAYERS
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            compute = onednn_layer if plain and by_onednn(x, *weight.shape[1:]) else self.layer
            x = compute(x, weight, bias)  # [E, N, out]
            if layer < last:
                x = self.activation(x)
        return x

    def forget_rounded(self) -> None:
        """To be called after a step of a fused optimizer, which changes weights without a trace."""
        self._rounded = None

    def _parameters_in(self, precision: torch.dtype | None) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights and biases, rounded once after each change of theirs."""
        weights, biases = list(self.weights), list(self.biases)
        if precision is None:
            return weights, biases
        now = (precision, *((id(p), p._version) for p in (*weights, *biases)))
        if self._rounded is None or self._rounded[0] != now:
            if weights[0].is_cpu and precision == torch.bfloat16:
                warn_of_emulation()
            with torch.no_grad():
                self._rounded = (
                    now,
                    [weight.to(precision) for weight in weights],
                    [bias.to(precision) for bias in biases],
                )
        return self._rounded[1:]


def rows_of_members(
    obs: Tensor, action: Tensor, num_members: int, obs_dim: int, action_dim: int
) -> tuple[Tensor, Tensor]:
    """States and actions for each of E members, whether they came as one batch for all or as one for each.

    Args:
        obs: [N, D] for all members alike, or [E, N, D].
        action: [N, A] or [E, N, A].
        num_members: E.
        obs_dim: D.
        action_dim: A.

    Returns:
        Views [E, N, D] and [E, N, A].

    Raises:
        ValueError: obs or action has the wrong width, or their numbers of rows don't agree.
    """
    for name, value, width in (("obs", obs, obs_dim), ("action", action, action_dim)):
        if value.dim() not in (2, 3) or value.shape[-1] != width:
            expected = f"[N, {width}] or [E, N, {width}]"
            raise ValueError(f"{name} has shape {list(value.shape)}, expected {expected}")
    try:
        # NumPy's is twenty times as fast as torch.broadcast_shapes, and planners come by here for each step
        batch = np.broadcast_shapes(obs.shape[:-1], action.shape[:-1], (num_members, 1))
    except ValueError:
        batch = ()
    if len(batch) != 2 or batch[0] != num_members:
        got = f"obs has shape {list(obs.shape)} and action {list(action.shape)}"
        raise ValueError(
            f"{got}, expected the same number of rows, for {num_members} members or for all alike"
        )
    return obs.expand(*batch, -1), action.expand(*batch, -1)


def orthogonal_mlp(
    sizes: tuple[int, ...], last_gain: float, generator: torch.Generator | None = None
) -> nn.Sequential:
    """A tanh network with orthogonal weights and zero biases, the last layer scaled by `last_gain`."""
    check_widths(sizes[1:-1])
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        layer = skip_init(nn.Linear, fan_in, fan_out)  # else it draws from PyTorch's own generator
        nn.init.orthogonal_(layer.weight, last_gain if last else 2**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)


def relu_mlp(sizes: tuple[int, ...], generator: torch.Generator | None = None) -> nn.Sequential:
    """A ReLU network with weights and biases uniform within 1 / sqrt(fan-in)."""
    check_widths(sizes[1:-1])
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = skip_init(Linear, fan_in, fan_out)  # else it draws from PyTorch's own generator
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def xavier_weights(network: nn.Module, gain: float, generator: torch.Generator | None = None) -> None:
    """Draws weights anew, uniform within gain sqrt(6 / (fan-in + fan-out)), and sets the biases to zero.

    Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks",
    Eq. 16, times a gain. Between layers of the same width the usual weights here have a gain of 0.58.

    Args:
        network: an `EnsembleMLP`, or modules made of `torch.nn.Linear`; changed in place.
        gain: above 0.
        generator: source of the random weights.

    Raises:
        ValueError: the gain is not above 0.
    """
    if not gain > 0:
        raise ValueError(f"gain is {gain}, expected more than 0")
    for name, parameter in network.named_parameters():
        if "bias" in name:  # of the ensemble [E, 1, out], of a single layer [out]
            nn.init.zeros_(parameter)
        else:  # [E, in, out], or [out, in]
            bound = gain * math.sqrt(6 / (parameter.shape[-1] + parameter.shape[-2]))
            nn.init.uniform_(parameter, -bound, bound, generator=generator)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
"""What share of the learning rate is used after a share `progress` in [0, 1] of the training. "cosine":
Loshchilov and Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts", Eq. 5, not restarted."""


def check_widths(hidden_sizes: Sequence[int], name: str = "hidden_sizes") -> None:
    """Checks the widths of hidden layers, which a configuration calls `name`.

    Raises:
        ValueError: one is below 1, or NaN.
    """
    if not all(size >= 1 for size in hidden_sizes):
        raise ValueError(f"{name} is {tuple(hidden_sizes)}, expected positive widths")
