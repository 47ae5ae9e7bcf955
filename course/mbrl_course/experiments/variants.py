"""What experiments share: the three scales, variants of one configuration, and a ledger of what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn

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
        shared_by_variants: fields that no variant can change, such as those of data that all are given.
    """

    variants: tuple[str, ...] = field(default=(), kw_only=True)

    shared_by_variants: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuses variants that can't be read, or change a field that is shared or that there is not."""
        for text in self.variants:
            variant_of(self, text)

    def settings(self) -> Any:
        """What a variant needs beside its own fields: the settings of its agent, say, which check theirs.

        Raises:
            ConfigError: there are no such settings.
        """
        return None


def variant_of(config: V, text: str) -> tuple[str, V]:
    """A variant's name and configuration, see `Variants`.

    Raises:
        ConfigError: the text can't be read, or its fields and values do not fit.
    """
    name, changes = _parts_of(text)
    for changed in changes:
        if changed in config.shared_by_variants:
            raise ConfigError(f"variants holds {text!r}: all variants share the field {changed!r}")
    try:
        return name, with_overrides(config, {"variants": (), **changes})
    except ConfigError as error:
        raise ConfigError(f"variants holds {text!r}: {error}") from None


def _parts_of(text: str) -> tuple[str, dict[str, str]]:
    """A variant's name, and the fields that it changes."""
    name, colon, rest = text.rpartition(":")
    changes: dict[str, str] = {}
    changed = ""
    for part in rest.split():
        if "=" in part:
            changed, _, value = part.partition("=")
            changes[changed] = value.replace("/", ",")
        elif changes:  # a value of several words
            changes[changed] += f" {part}"
        else:
            expected = (
                "such as 'NAME: FIELD=VALUE FIELD=VALUE', with a semicolon after each if names hold commas"
            )
            raise ConfigError(f"variants holds {text!r}, expected {expected}")
    return (name if colon else text).strip(), changes


def refuse_without_effect(config: Variants, names: Iterable[str]) -> None:
    """Checks fields that somebody wants to change.

    Raises:
        ConfigError: every variant has a value of its own for one of them.
    """
    changed = [_parts_of(text)[1] for text in config.variants]
    for name in names:
        if changed and all(name in changes for changes in changed):
            raise ConfigError(
                f"field {name!r} would have no effect, since every variant sets it: "
                f"{', '.join(map(repr, config.variants))}; choose other variants, or none (variants=)"
            )


def one_field(name: str, *values: str) -> tuple[str, ...]:
    """A variant for each value of a field, called "FIELD=VALUE"."""
    return tuple(f"{name}={value}" for value in values)


def each_variant(config: V, run: Run) -> Iterator[tuple[str, V, Any]]:
    """Goes through the variants as units of the run; there is one, "as set", where none are named.

    Args:
        config: holds the variants.
        run: the run.

    Returns:
        Name, configuration and `Variants.settings` of each variant.

    Raises:
        ConfigError: see `variant_settings`; nothing has run by then.
    """
    yield from run.units(variant_settings(config), "variants")


def variant_settings(config: V) -> list[tuple[str, V, Any]]:
    """Name, configuration and `Variants.settings` of each variant.

    Raises:
        ConfigError: the settings of one can't be.
    """
    named = [variant_of(config, text) for text in config.variants or ("as set:",)]
    return [(name, variant, variant.settings()) for name, variant in named]


def settings_of(kind: type[T], config: Any, **changes: Any) -> T:
    """A dataclass made of the fields that it has in common with `config`, and of `changes`.

    Raises:
        ConfigError: it refuses a value.
    """
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in names}
    try:
        return kind(**{**shared, **changes})
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def divergence_named(*networks: nn.Module) -> Iterator[None]:
    """Networks whose weights are not finite any more fail in many ways; this makes one error of them.

    Raises:
        FloatingPointError: what is done inside failed, and the weights of a network are not finite.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if all(bool(weights.isfinite().all()) for network in networks for weights in network.parameters()):
            raise
        raise FloatingPointError(
            f"the weights of a network are not finite any more: is learning_rate small enough? ({error})"
        ) from error


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
        model_calls: imagined steps: states that a model advanced by one step; of rollouts, valid ones only. A
            step by the mean of an ensemble counts once, though all members are asked.
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

    def __init__(self, model: Model, **options: Any) -> None:
        """Passes everything on to `model`, with these options of its `step`: a generator, say."""
        self._model, self._options = model, options
        self.calls, self.ensemble_size = 0, model.ensemble_size

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the model, counted."""
        self.calls += obs[..., 0].numel()
        return self._model.step(obs, action, **self._options)
