"""Losses and their gradients by `torch.compile`, where it works.

With small networks most of a gradient step is overhead: a few hundred operations on tensors of a few
kilobytes, which a compiler fuses. It can't fuse what it does not see, so a loss and its gradient are compiled
as one function (network by network, updates became slower). The matrix products stay those of PyTorch's
library, so large networks gain less: `make bench` measures both. Sums are rounded in another order, so that a
compiled run is not the same run, but one of the same kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

if TYPE_CHECKING:
    from mbrl_course.buffers import Batch
    from mbrl_course.ensembles import GaussianEnsemble
    from mbrl_course.sac import SAC

VERSIONS = 64
"""So many shapes and settings of one loss can be compiled in one process."""


@cache
def why_not() -> str:
    """Why nothing can be compiled here; empty where it can. The first call compiles something tiny to see."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(lambda x: x.sin() + 1)(torch.zeros(2))
    except Exception as error:  # of any kind: the compiler's, the linker's, the file system's
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


def can_compile() -> bool:
    """Whether there is all that a compiler needs; a warning says why not."""
    if reason := why_not():
        text = f"compile=True changes nothing here, torch.compile does not work ({reason})"
        warnings.warn(text, stacklevel=3)
    return not reason


class CompiledGradient:
    """A loss, compiled together with its gradient when it is first asked for.

    That takes a C++ compiler and some ten seconds; later runs find the result in a cache, in two or three.
    """

    def __init__(self, parameters: Mapping[str, Tensor], loss: Callable[..., tuple[Tensor, Tensor]]) -> None:
        """The gradient of `loss` in `parameters`.

        Args:
            parameters: leaves, by name.
            loss: is given their values by name, and whatever it is called with; returns what is to become
                smaller, and what is to be shown of it, both scalars.
        """
        from torch._dynamo import config  # takes a second: only where it is needed

        config.recompile_limit = max(VERSIONS, config.recompile_limit)
        self.parameters = dict(parameters)
        self._gradient = torch.compile(grad_and_value(loss, has_aux=True), fullgraph=True)

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Tensor:
        """Sets the gradients of all parameters; returns what is to be shown of the loss."""
        values = {name: parameter.detach() for name, parameter in self.parameters.items()}
        gradients, (_, shown) = self._gradient(values, *inputs)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        return shown


def of_critics(agent: SAC) -> CompiledGradient:
    """The gradient of `SAC.critics_loss` in the critics' weights: called with batch, noise and weights."""

    def loss(
        parameters: dict[str, Tensor], batch: Batch, noise: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        def critics(*pair: Tensor) -> Tensor:
            return functional_call(agent.critics, parameters, pair)

        value = agent.critics_loss(critics, batch, noise, weights)
        return value, value.detach()

    return CompiledGradient(dict(agent.critics.named_parameters()), loss)


def of_policy(agent: SAC) -> CompiledGradient:
    """The gradient of `SAC.policy_losses` in the actor's weights and the temperature; called with obs, noise.

    The actor's loss is shown.
    """

    def loss(parameters: dict[str, Tensor], obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        weights = {name: value for name, value in parameters.items() if name != "log_temperature"}

        def actor(obs: Tensor) -> tuple[Tensor, Tensor]:
            return functional_call(agent.actor, weights, (obs,))

        return agent.policy_losses(actor, parameters["log_temperature"], obs, noise)

    parameters = {**dict(agent.actor.named_parameters()), "log_temperature": agent.log_temperature}
    return CompiledGradient(parameters, loss)


class _LossOf(nn.Module):
    """An ensemble's loss as a module's `forward`, so that its weights can be exchanged."""

    def __init__(self, ensemble: GaussianEnsemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.ensemble.loss(inputs, targets)


def of_ensemble(ensemble: GaussianEnsemble) -> CompiledGradient:
    """The gradient of `GaussianEnsemble.loss`: called with inputs and targets. The mean NLL is shown."""
    module = _LossOf(ensemble)

    def loss(parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(module, parameters, (inputs, targets))

    return CompiledGradient(dict(module.named_parameters()), loss)
