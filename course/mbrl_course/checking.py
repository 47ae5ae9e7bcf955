"""Checks that say what is wrong: the helpers of the notebooks' test cells.

A bare `assert torch.allclose(a, b)` tells a student that something is wrong. These helpers tell what came,
what was expected, and which mistake would give just that. They look at data only (shapes, dtypes, values),
never at the code that made them, so they work just as well on data that come from another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(name: str, value: Any) -> Tensor:
    """`value` as a float64, int64 or bool tensor: tensors, arrays, numbers and (nested) lists are welcome.

    Raises:
        AssertionError: `value` is nothing of the kind; a None is named as a forgotten `return`.
    """
    __tracebackhide__ = True
    if value is None:
        raise AssertionError(f"{name} is None: is a `return` missing?")
    kind = type(value).__name__
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
    else:
        if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            value = [item.detach().cpu().numpy() if isinstance(item, Tensor) else item for item in value]
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):
            array = np.asarray(None)
        if array.dtype == object or array.dtype.kind not in "bifu":
            several = f" of {len(value)} things" if isinstance(value, list | tuple) else ""
            raise AssertionError(f"{name} is a {kind}{several}, expected a{' single' * bool(several)} tensor")
        tensor = torch.from_numpy(np.array(array))
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def check_shape(name: str, value: Any, shape: Sequence[int], hints: Mapping[Any, str] | str = "") -> Tensor:
    """Asserts that `value` has `shape`, and returns it as a tensor.

    Args:
        name: what the value is called in the exercise, such as "next_obs".
        value: what the student's code returned.
        shape: the expected shape.
        hints: what a wrong shape means: one text for all, or a text for each likely wrong shape (a tuple).

    Raises:
        AssertionError: "next_obs has shape [10, 4], expected [3, 10, 4]: is the ensemble axis missing?"
    """
    __tracebackhide__ = True
    return _of_shape(name, as_tensor(name, value), shape, hints)


def _of_shape(
    name: str, tensor: Tensor, shape: Sequence[int], hints: Mapping[Any, str] | str, otherwise: str = ""
) -> Tensor:
    """As `check_shape`; `otherwise` is said where nothing is known of the wrong shape."""
    __tracebackhide__ = True
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    hint = hints if isinstance(hints, str) else hints.get(tuple(tensor.shape), "")
    if not hint and sorted(tensor.shape) == sorted(shape):
        hint = "are two axes swapped?"
    if not hint and [n for n in tensor.shape if n != 1] == [n for n in shape if n != 1]:
        hint = "is there an axis of length 1 too many or too few (squeeze, unsqueeze, keepdim)?"
    hint = hint or otherwise
    message = f"{name} has shape {list(tensor.shape)}, expected {list(shape)}"
    raise AssertionError(f"{message}: {hint}" if hint else message)


def check_close(
    name: str,
    value: Any,
    expected: Any,
    *,
    mistakes: Mapping[str, Any] | None = None,
    hint: str = "",
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Tensor:
    """Asserts that `value` equals `expected` up to rounding, and returns it as a tensor.

    Args:
        name: what the value is called in the exercise.
        value: what the student's code returned.
        expected: the right value.
        mistakes: for each likely mistake, its description and the value that it leads to; where the student's
            value fits one, the message is that description.
        hint: said when no mistake fits, or where the shape is another one for no known reason.
        rtol: relative tolerance.
        atol: absolute tolerance, in the value's unit.

    Raises:
        AssertionError: with the first place that differs, both values there, and the likely mistake.
    """
    __tracebackhide__ = True
    expected_tensor = as_tensor("expected", expected).double()
    tensor = _of_shape(name, as_tensor(name, value), expected_tensor.shape, "", hint).double()
    if _close(tensor, expected_tensor, rtol, atol):
        return tensor
    for mistake, wrong in (mistakes or {}).items():
        wrong_tensor = as_tensor("mistake", wrong).double()
        if wrong_tensor.shape == tensor.shape and _close(tensor, wrong_tensor, rtol, atol):
            raise AssertionError(f"{name} is not right: {mistake}")
    hint = f": {hint}" if hint else _guess(tensor, expected_tensor, rtol, atol)
    raise AssertionError(f"{_difference(name, tensor, expected_tensor, rtol, atol)}{hint}")


def check_between(name: str, value: Any, low: float, high: float, hint: str = "") -> Tensor:
    """Asserts that every entry of `value` lies in [low, high], and returns it as a tensor.

    Raises:
        AssertionError: with the first entry that lies outside, or that is NaN.
    """
    __tracebackhide__ = True
    tensor = as_tensor(name, value).double()
    bad = ~((tensor >= low) & (tensor <= high))
    if not bool(bad.any()):
        return tensor
    place = _first(bad)
    message = f"{name}{_index(place)} is {tensor[place].item():.6g}, expected between {low:g} and {high:g}"
    raise AssertionError(f"{message}: {hint}" if hint else message)


def check_true(condition: Any, message: str) -> None:
    """Asserts `condition`; the message says what was expected and what the likely mistake is."""
    __tracebackhide__ = True
    if not bool(condition):
        raise AssertionError(message)


def check_unchanged(name: str, value: Any, before: Any, remedy: str = "work on a copy") -> None:
    """Asserts that an argument still is what it was before the call.

    Args:
        name: of the argument.
        value: the argument after the call.
        before: a copy that was made before.
        remedy: what the student may do instead.

    Raises:
        AssertionError: "the caller's rewards changed: use torch.where, not rewards[...] = 0"
    """
    __tracebackhide__ = True
    new, old = as_tensor(name, value), as_tensor(name, before)
    if new.shape != old.shape or not bool(((new == old) | (new.isnan() & old.isnan())).all()):
        raise AssertionError(f"the caller's {name} changed: {remedy}")


def check_raises(
    name: str, error: type[Exception], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """Asserts that a call is refused.

    Args:
        name: what is wrong with the call, such as "gamma=1.5".
        error: class of the expected error.
        function: what is called, with `args` and `kwargs`.

    Raises:
        AssertionError: "gamma=1.5: expected a ValueError, but nothing was raised".
        NotImplementedError: the function is still to be written.
    """
    __tracebackhide__ = True
    came = "nothing was raised"
    try:
        function(*args, **kwargs)
    except error:
        return
    except NotImplementedError:
        raise
    except Exception as other:
        came = f"{type(other).__name__} was raised"
    raise AssertionError(f"{name}: expected a {error.__name__}, but {came}")


def gradients(value: Any, *leaves: Tensor) -> list[Tensor]:
    """The gradient of the sum of `value`, what a student's function returned, with respect to each leaf.

    Zeros where there is no way back: gradients that were cut off (`.item()`, `.detach()`, numpy) then differ
    from the expected ones, as any other mistake does, instead of raising an error of autograd's.
    """
    if not (isinstance(value, Tensor) and value.requires_grad):
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)
    ]


def _close(tensor: Tensor, expected: Tensor, rtol: float, atol: float) -> bool:
    return torch.allclose(tensor, expected, rtol=rtol, atol=atol, equal_nan=True)


def _first(bad: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in bad.nonzero()[0])


def _index(place: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, place))}]" if place else ""


def _difference(name: str, tensor: Tensor, expected: Tensor, rtol: float, atol: float) -> str:
    bad = ~torch.isclose(tensor, expected, rtol=rtol, atol=atol, equal_nan=True)
    place = _first(bad)
    share = "" if tensor.numel() == 1 else f" ({int(bad.sum())} of {tensor.numel()} values differ)"
    where = f"{name}{_index(place)}"
    return f"{where} is {tensor[place].item():.6g}, expected {expected[place].item():.6g}{share}"


def _guess(tensor: Tensor, expected: Tensor, rtol: float, atol: float) -> str:
    """Names a simple relation between a wrong value and the right one, if there is any."""
    if not bool(torch.isfinite(tensor[torch.isfinite(expected)]).all()):
        return ": there are NaN or infinite values"
    if _close(tensor, -expected, rtol, atol):
        return ": it has the wrong sign"
    if tensor.numel() and bool((expected.abs() > atol).any()):
        mask = expected.abs() > atol
        ratio = tensor[mask] / expected[mask]
        factor = float(ratio[0])
        same = bool(torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=10 * rtol, atol=0))
        # any number is some multiple of the right one: alone, that says something where it is 2, 1/2, 3 ...
        telling = len(ratio) > 1 or _is_simple(factor, 10 * rtol)
        if same and telling and abs(factor) > 1e-6 and _close(tensor, factor * expected, 10 * rtol, atol):
            return f": it is {factor:.4g} times what it should be"
    return ""


def _is_simple(factor: float, rtol: float) -> bool:
    """Whether a factor is a whole number from 2 to 100 or one over it, give or take a sign and `rtol`."""
    size = max(abs(factor), 1 / abs(factor)) if factor else 0.0
    return 1.5 < size < 100.5 and abs(size - round(size)) <= rtol * size
