"""Networks compiled by `torch.compile`, where it works.

Measure before using it. With one thread of an AMD EPYC and PyTorch 2.13, SAC's update at its default sizes took
13 ms of CPU compiled and 9 ms as it is: most of the time goes into products that are the same either way (and
faster by `mbrl_course.products`), and the compiler's code for ReLUs in frozen networks was slow.
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
