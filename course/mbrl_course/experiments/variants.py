"""What experiments share: the three scales, variants of one configuration, and a ledger of what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from mbrl_course.experiments.config import ConfigError, with_overrides
from mbrl_course.experiments.runner import Run

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.mpc import Model

V = TypeVar("V", bound="Variants")
T = TypeVar("T")


@dataclass(frozen=True)
class Variants:
    """A configuration that is compared with variants of itself.

    Attributes:
        variants: what is compared, each as "FIELD=VALUE FIELD=VALUE", with a name of its own as
            "NAME: FIELD=VALUE"; several values of a field are separated by slashes, as in
            "hidden_sizes=64/64". "NAME:" alone is the configuration as it is.
    """

    variants: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Refuses variants that can't be read, or have a field that there is not."""
        for text in self.variants:
            variant_of(self, text)


def variant_of(config: V, text: str) -> tuple[str, V]:
    """A variant's name and configuration, see `Variants`.

    Raises:
        ConfigError: the text can't be read, or its fields and values do not fit.
    """
    name, colon, rest = text.rpartition(":")
    changes: dict[str, Any] = {"variants": ()}
    for part in rest.split():
        changed, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"variants holds {text!r}, expected such as 'NAME: FIELD=VALUE FIELD=VALUE'")
        changes[changed] = value.replace("/", ",")
    try:
        return (name if colon else text).strip(), with_overrides(config, changes)
    except ConfigError as error:
        raise ConfigError(f"variants holds {text!r}: {error}") from None


def one_field(name: str, *values: str) -> tuple[str, ...]:
    """A variant for each value of a field, called "FIELD=VALUE"."""
    return tuple(f"{name}={value}" for value in values)


def each_variant(config: V, run: Run, settings: Callable[[V], T]) -> Iterator[tuple[str, V, T]]:
    """Goes through the variants as units of the run; there is one, "as set", where none are named.

    Args:
        config: holds the variants.
        run: the run.
        settings: makes what a variant needs of its configuration; it is called for all of them before the
            first one runs, so that a value that can't be is refused at once.

    Returns:
        Name, configuration and settings of each variant.
    """
    named = [variant_of(config, text) for text in config.variants or ("as set:",)]
    yield from run.units([(name, variant, settings(variant)) for name, variant in named], "variants")


def settings_of(kind: type[T], config: Any, **changes: Any) -> T:
    """A dataclass made of the fields that it has in common with `config`, and of `changes`."""
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in names}
    return kind(**{**shared, **changes})


def scales(full: T, laptop: Mapping[str, Any], smoke: Mapping[str, Any]) -> dict[str, T]:
    """The configurations of an experiment: the full one, and what is smaller at the other scales."""
    configs: dict[str, Any] = {"smoke": smoke, "laptop": laptop, "full": {}}
    return {name: dataclasses.replace(full, **changes) for name, changes in configs.items()}  # type: ignore[type-var]


def ledger(
    run: Run, env_steps: int, model_calls: int, agent_updates: int, model_updates: int
) -> dict[str, Any]:
    """The columns that say what a variant has cost so far.

    Args:
        run: knows the seconds, on the wall and of the processor; evaluation is not among them.
        env_steps: steps in the real environment, those of the trial that is judged included.
        model_calls: imagined steps: states that a model advanced by one step; of rollouts, valid ones only.
        agent_updates: gradient steps of the policy.
        model_updates: gradient steps of the model; one of all members together counts once.
    """
    seconds, cpu_seconds = run.unit_seconds
    return {
        "env_steps": env_steps,
        "model_calls": model_calls,
        "agent_updates": agent_updates,
        "model_updates": model_updates,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
    }


class CountingModel:
    """A model that counts how many steps it is asked to imagine.

    Attributes:
        calls: imagined steps so far, over all members and sequences.
        ensemble_size: that of the model.
    """

    def __init__(self, model: Model) -> None:
        """Passes everything on to `model`."""
        self._model, self.calls, self.ensemble_size = model, 0, model.ensemble_size

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the model, counted."""
        self.calls += obs[..., 0].numel()
        return self._model.step(obs, action)
