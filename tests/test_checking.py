"""What the helpers of the notebooks' test cells say of a wrong value."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_raises,
    check_shape,
    check_true,
    check_unchanged,
    gradients,
)

NAN = float("nan")


def message(check: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], (1, 2), np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), [torch.tensor(1.0), 2.0]]
)
def test_right_values_of_every_kind_pass(value: Any) -> None:
    assert check_close("x", value, [1.0, 2.0]).tolist() == [1.0, 2.0]


def test_a_gradient_does_not_matter_and_is_not_needed() -> None:
    assert not as_tensor("x", torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "x is None: is a `return` missing?"),
        ("text", "x is a str, expected a tensor"),
        ({"a": 1}, "x is a dict, expected a tensor"),
        ([[1.0], [1.0, 2.0]], "x is a list of 2 things, expected a single tensor"),
        ((torch.zeros(2), 3.0), "x is a tuple of 2 things, expected a single tensor"),
    ],
)
def test_what_is_no_tensor_is_named(value: Any, said: str) -> None:
    assert message(as_tensor, "x", value) == said


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 3), "x has shape [4, 3], expected [3, 4]: are two axes swapped?"),
        ((3, 1, 4), "expected [3, 4]: is there an axis of length 1 too many or too few"),
        ((5,), "x has shape [5], expected [3, 4]"),
    ],
)
def test_shapes(shape: tuple[int, ...], said: str) -> None:
    assert said in message(check_shape, "x", torch.zeros(shape), (3, 4))


def test_a_shape_that_was_foreseen_has_its_own_hint() -> None:
    hints = {(5,): "one per member?"}
    assert message(check_shape, "x", torch.zeros(5), (3, 4), hints).endswith(": one per member?")


@pytest.mark.parametrize(
    ("value", "expected", "said"),
    [
        ([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], "x[2] is 4, expected 3 (1 of 3 values differ)"),
        ([-1.0, 2.0], [1.0, -2.0], "x[0] is -1, expected 1 (2 of 2 values differ): it has the wrong sign"),
        ([0.7, 1.4], [1.0, 2.0], "(2 of 2 values differ): it is 0.7 times what it should be"),
        ([2.0, 0.0], [1.0, 0.0], "(1 of 2 values differ): it is 2 times what it should be"),
        (0.5, 1.0, "x is 0.5, expected 1: it is 0.5 times what it should be"),
        (-9.0, 3.0, "x is -9, expected 3: it is -3 times what it should be"),
        (0.97, 1.0, "x is 0.97, expected 1"),
        (1.5, 1.0, "x is 1.5, expected 1"),
        (0.0, 1.0, "x is 0, expected 1"),
        (1.0, 0.0, "x is 1, expected 0"),
        ([NAN, 1.0], [1.0, 1.0], "x[0] is nan, expected 1 (1 of 2 values differ): there are NaN"),
    ],
)
def test_wrong_values(value: Any, expected: Any, said: str) -> None:
    got = message(check_close, "x", value, expected)
    assert got.startswith(said) if "NaN" in said else got.endswith(said)


def test_a_typical_mistake_is_named_before_anything_is_guessed() -> None:
    mistakes = {"the sum was taken for the mean": 6.0}
    assert message(check_close, "x", 6.0, 3.0, mistakes=mistakes) == (
        "x is not right: the sum was taken for the mean"
    )
    assert message(check_close, "x", 9.0, 3.0, mistakes=mistakes, hint="see above").endswith(": see above")


def test_bounds_and_conditions() -> None:
    assert check_between("x", [0.0, 1.0], 0, 1).tolist() == [0.0, 1.0]
    assert message(check_between, "x", [0.5, 1.5], 0, 1) == "x[1] is 1.5, expected between 0 and 1"
    assert message(check_between, "x", NAN, 0, 1, "log of 0?").endswith("between 0 and 1: log of 0?")
    check_true(torch.tensor(True), "")
    assert message(check_true, [], "nothing came") == "nothing came"


def test_gradients_are_those_of_autograd_and_zero_where_there_is_no_way_back() -> None:
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    of_x, of_y = gradients(x.square() * y, x, y)
    assert of_x.tolist() == [6.0, 12.0]
    assert of_y.item() == 5.0
    assert [slope.tolist() for slope in gradients(x.square().sum(), x, y)] == [[2.0, 4.0], 0.0]
    for cut in (x.detach().sum(), x.sum().item(), x.detach().numpy(), None):
        assert [slope.tolist() for slope in gradients(cut, x, y)] == [[0.0, 0.0], 0.0]


def test_a_changed_argument_is_named() -> None:
    before = torch.tensor([1.0, 2.0])
    check_unchanged("rewards", before.clone(), before)
    check_unchanged("flags", torch.tensor([True]), torch.tensor([True]))
    check_unchanged("scores", [1.0, NAN], torch.tensor([1.0, NAN]))
    for changed in (before + 1, before[:1]):
        said = message(check_unchanged, "rewards", changed, before, "use torch.where")
        assert said == "the caller's rewards changed: use torch.where"


def test_what_is_not_refused_or_in_another_way_is_named() -> None:
    def root(x: float, *, strict: bool) -> float:
        if x < 0 and strict:
            raise ValueError
        return math.sqrt(x)

    def unwritten() -> None:
        raise NotImplementedError

    check_raises("x=-1", ValueError, root, -1.0, strict=True)
    check_raises("x=-1", ArithmeticError, divmod, 1, 0)  # a ZeroDivisionError is one
    said = message(check_raises, "x=1", ValueError, root, 1.0, strict=True)
    assert said == "x=1: expected a ValueError, but nothing was raised"
    said = message(check_raises, "x=-1", KeyError, root, -1.0, strict=False)
    assert said == "x=-1: expected a KeyError, but ValueError was raised"
    with pytest.raises(NotImplementedError):
        check_raises("x", ValueError, unwritten)


def test_a_hint_is_said_of_a_wrong_shape_and_of_an_expected_infinity() -> None:
    said = message(check_close, "the data", torch.ones(4), torch.ones(7), hint="all trials count")
    assert said == "the data has shape [4], expected [7]: all trials count"
    swapped = message(check_close, "x", torch.ones(4, 7), torch.ones(7, 4), hint="all trials count")
    assert swapped.endswith("are two axes swapped?")
    infinite = torch.tensor([torch.inf, 2.0, 3.0])
    assert message(check_close, "x", 2 * infinite, infinite).endswith("(2 of 3 values differ)")
