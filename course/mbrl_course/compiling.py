"""Networks compiled by `torch.compile`, where it works.

Measure before using it (`bench_training.py --compile`). In trials with PyTorch 2.13, one thread, AMD EPYC,
SAC's updates (2 x 256, batch 256, half-cheetah) took 13 to 14 ms of CPU with compiled parts, and 8 to 9 ms
without: the compiler's code for the ReLUs of frozen networks was slow, and most of the time goes into
matrix products anyway, which it leaves to PyTorch's usual library.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import nn


@cache
def why_not() -> str:
    """Why nothing can be compiled here; empty where it can. The first call compiles a tiny network to see."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
            network(torch.zeros(2, 2)).sum().backward()
    except Exception as error:  # of any kind: the compiler's, the linker's, the file system's
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


def compile_networks(*networks: nn.Module) -> None:
    """Has networks compiled in place, with their gradients, when they are first called.

    That takes a C++ compiler and up to a minute; later runs find the result in a cache. Where it does not
    work, a warning says why, and the networks stay as they are.
    """
    reason = why_not()
    if reason:
        warnings.warn(
            f"compile=True changes nothing here, torch.compile does not work ({reason})", stacklevel=2
        )
        return
    for network in networks:
        network.compile()
