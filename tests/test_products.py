"""oneDNN's layers against torch's own: values and gradients, and which layers it computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mbrl_course import networks, products
from mbrl_course.ensembles import ensemble_layer
from mbrl_course.networks import EnsembleMLP, batched_layer, relu_mlp

has_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch is built without oneDNN"
)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN for every layer, however small, on every processor."""
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", True)
    monkeypatch.setattr(products, "WORTHWHILE", 0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def assert_same(found: Tensor, expected: Tensor, arguments: list[Tensor]) -> None:
    """Equal values and gradients, up to rounding, for a random gradient of the outputs."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradient = random(*expected.shape, seed=9).detach()
    ours = torch.autograd.grad(found, arguments, gradient)
    theirs = torch.autograd.grad(expected, arguments, gradient)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@has_onednn
@pytest.mark.parametrize("members", [1, 3])
def test_members_side_by_side(members: int) -> None:
    x, weight, bias = random(members, 40, 7), random(members, 7, 5, seed=1), random(members, 1, 5, seed=2)
    assert_same(products.onednn_layer(x, weight, bias), x @ weight + bias, [x, weight, bias])


@has_onednn
def test_a_single_layer(onednn: None) -> None:
    layer, x = products.Linear(7, 5), random(40, 7)
    assert_same(layer(x), nn.functional.linear(x, layer.weight, layer.bias), [x, layer.weight, layer.bias])
    for shape in ((7,), (2, 3, 7)):
        assert layer(torch.zeros(shape)).shape == (*shape[:-1], 5)


@has_onednn
def test_gradients_that_are_not_needed_are_not_computed(onednn: None) -> None:
    layer, x = products.Linear(7, 5).requires_grad_(False), random(40, 7)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(40, 7))
    assert layer.weight.grad is None and layer.bias.grad is None


@has_onednn
def test_whole_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of network give what they give without oneDNN, and the same gradients."""
    generator = torch.Generator().manual_seed(0)
    single, ensemble = (
        relu_mlp((6, 30, 20, 2), generator),
        EnsembleMLP(3, 6, 2, (30, 20), generator=generator),
    )
    for network, x in ((single, random(50, 6)), (ensemble, random(3, 50, 6)), (ensemble, random(50, 6))):
        monkeypatch.setattr(products, "ONEDNN_IS_FASTER", False)
        plain = network(x)
        monkeypatch.setattr(products, "ONEDNN_IS_FASTER", True)
        monkeypatch.setattr(products, "WORTHWHILE", 0)
        assert_same(network(x), plain, [x, *network.parameters()])


def test_small_layers_and_other_types_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "WORTHWHILE", 100 * 7 * 5)
    for faster in (True, False):
        monkeypatch.setattr(products, "ONEDNN_IS_FASTER", faster)
        assert products.by_onednn(torch.zeros(100, 7), 7, 5) is faster
        assert products.by_onednn(torch.zeros(3, 100, 7), 7, 5) is faster  # the size of one member's product
        assert not products.by_onednn(torch.zeros(99, 7), 7, 5)
        assert not products.by_onednn(torch.zeros(100, 7, dtype=torch.float64), 7, 5)
        assert not products.by_onednn(torch.zeros(100, 7, dtype=torch.bfloat16), 7, 5)


@has_onednn
def test_a_layer_of_ones_own_is_used_however_large_it_is(onednn: None) -> None:
    shapes = []

    def mine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        shapes.append(tuple(weight.shape))
        return x @ weight + bias

    EnsembleMLP(3, 4, 2, (8,), layer=mine)(torch.zeros(3, 5, 4))
    assert shapes == [(3, 4, 8), (3, 8, 2)]


@has_onednn
@pytest.mark.parametrize("layer", [batched_layer, ensemble_layer])
def test_the_packages_layers_may_be_replaced(
    onednn: None, monkeypatch: pytest.MonkeyPatch, layer: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    replaced = []

    def by_onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        replaced.append(tuple(weight.shape))
        return x @ weight + bias

    monkeypatch.setattr(networks, "onednn_layer", by_onednn)
    EnsembleMLP(3, 4, 2, (8,), layer=layer)(torch.zeros(3, 5, 4))
    assert replaced == [(3, 4, 8), (3, 8, 2)]


@pytest.mark.parametrize(
    ("about", "faster"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_vp2intersect": True}, True),  # Zen 5
        ({"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_vp2intersect": False}, False),  # Zen 4
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True, "avx512_vp2intersect": True}, False),
        ({}, False),
    ],
)
@has_onednn
def test_only_whole_avx512_units_of_amd_ask_for_onednn(
    about: dict[str, object], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: about, raising=False)
    assert products._onednn_is_faster() == faster


X86 = {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False, "avx_ne_convert": False}


@pytest.mark.parametrize(
    ("about", "emulated"),
    [
        (X86, True),  # Zen 3, say
        ({**X86, "avx512_bf16": True}, False),  # Zen 4
        ({**X86, "amx_bf16": True}, False),
        ({**X86, "avx_ne_convert": True}, False),
        ({"architecture": "aarch64"}, False),  # it is not known there
        ({}, False),
    ],
)
def test_bfloat16_is_emulated_on_x86_without_instructions_for_it(
    about: dict[str, object], emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: about, raising=False)
    assert products._bfloat16_is_emulated() == emulated


@pytest.mark.parametrize("emulated", [True, False])
def test_a_prediction_in_emulated_bfloat16_warns(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BFLOAT16_IS_EMULATED", emulated)
    network = EnsembleMLP(3, 4, 2, (8,))
    with warnings.catch_warnings(record=True) as told, torch.inference_mode():
        warnings.simplefilter("always")
        network(torch.zeros(3, 5, 4))
        assert not told
        network(torch.zeros(3, 5, 4), precision=torch.bfloat16)
        network(torch.zeros(3, 5, 4), precision=torch.bfloat16)
    # once for these weights
    assert ["no instructions for bfloat16" in str(one.message) for one in told] == [True] * emulated
