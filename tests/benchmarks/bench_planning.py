"""How long does a plan take, and how much of the machine's arithmetic does it use?

    python tests/benchmarks/bench_planning.py --out planning.json

Random shooting and CEM (4 iterations) at the settings of CS285's homework: an ensemble of 3 with two layers
of 250, 1000 sequences, horizon 10 on the obstacles and 15 on the half-cheetah. And an iteration of CEM at
those of PETS on the half-cheetah: an ensemble of 5 with four layers of 200, 500 sequences, 20 particles,
horizon 30. The yardstick is this machine's own product of two float32 matrices of 2048 x 2048 by
`torch.mm`, with the same number of threads, measured in turn with the plans, so that both suffer alike from
whatever else the machine does. Only the networks' matrix products count as arithmetic (2 FLOP for a
multiplication and an addition); the rest is overhead, and lowers the share. Where oneDNN makes the products
(`mbrl_course.products`), the share may exceed 1. Two settings are planned in bfloat16 too, on processors with
instructions for it: their share is that of the same float32 peak. Where PyTorch finds a GPU, the
half-cheetah's plans are scored there too: their share is that of the CPU's peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from mbrl_course import pets, products
from mbrl_course.accelerator import AcceleratedModel
from mbrl_course.cem import CEMConfig
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.experiments import get_config
from mbrl_course.experiments.files import machine
from mbrl_course.experiments.week02 import MPCConfig, make_model, make_planner

TINY: dict[str, Any] = {"hidden_sizes": (8, 8), "num_sequences": 20, "horizon": 2, "num_elites": 5}
"""What `--tiny` changes, to see in a second that everything runs; its numbers mean nothing."""


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        task: the task whose model is planned in.
        search: "random shooting", "CEM" or "PETS", with the number of iterations, and "bfloat16" or "GPU".
        ms_per_plan: median milliseconds per plan.
        best_ms: the fastest plan.
        gflop_per_plan: 10^9 floating-point operations in the networks' matrix products.
        gflops: 10^9 of them per second, at the median.
        peak_gflops: median of the 2048 x 2048 matrix product.
        share_of_peak: `gflops` over `peak_gflops`.
    """

    task: str
    search: str
    ms_per_plan: float
    best_ms: float
    gflop_per_plan: float
    gflops: float
    peak_gflops: float
    share_of_peak: float


def settings(tiny: bool = False) -> list[MPCConfig]:
    """The published settings of obstacles and half-cheetah, with random shooting and with CEM."""
    configs = []
    for name in ("q2", "q3-cheetah"):
        for search in ("random shooting", "CEM"):
            config: MPCConfig = replace(get_config(name, "full"), search=search)
            configs.append(replace(config, **TINY) if tiny else config)
    return configs


@dataclass(frozen=True)
class Plan:
    """What is measured: `function` makes one plan in `task` by `search`, with `flop` operations."""

    task: str
    search: str
    function: Callable[[], object]
    flop: float


def mpc_plan(config: MPCConfig) -> Plan:
    """A plan of week 2 or 3 with an untrained model."""
    task = get_task(config.task)
    generator = torch.Generator().manual_seed(0)
    model = make_model(task, config, generator)
    planned_in = AcceleratedModel(model, config.device) if config.device == "cuda" else model
    planner = make_planner(task, planned_in, config, generator)
    obs = torch.zeros(task.obs_dim)
    iterations = config.cem_iterations if config.search == "CEM" else 1
    weights = sum(weight.numel() for weight in model.network.weights)  # of all members
    flop = 2.0 * weights * config.num_sequences * config.horizon * iterations
    search = f"CEM, {iterations} iterations" if config.search == "CEM" else config.search
    search += rounded(config.precision) + (", GPU" if config.device == "cuda" else "")
    return Plan(config.task, search, lambda: planner.plan(obs), flop)


def rounded(precision: str) -> str:
    """What the name of a search ends in."""
    return "" if precision == "float32" else f", {precision}"


def pets_plan(
    hidden_sizes: tuple[int, ...] = (200,) * 4,
    population_size: int = 500,
    horizon: int = 30,
    precision: str = "float32",
) -> Plan:
    """One iteration of CEM with 20 particles in an untrained ensemble of 5, on the half-cheetah."""
    task, generator = get_task("cheetah"), torch.Generator().manual_seed(0)
    ensemble = GaussianEnsemble(
        task.obs_dim,
        task.action_dim,
        EnsembleConfig(hidden_sizes=hidden_sizes, precision=precision),
        reward=task.reward,
        terminated=task.terminated,
        generator=generator,
    )
    search = CEMConfig(
        population_size=population_size, num_elites=population_size // 10, num_iterations=1, horizon=horizon
    )
    config = pets.PETSConfig(optimizer=search, num_particles=20)
    planner = pets.make_planner(ensemble, task.action_low, task.action_high, config, generator)
    planner.reset()
    obs = torch.zeros(task.obs_dim)
    weights = sum(weight[0].numel() for weight in ensemble.network.weights)  # of one member
    flop = 2.0 * weights * population_size * config.num_particles * horizon
    return Plan("cheetah", "PETS, 1 iteration" + rounded(precision), lambda: planner.plan(obs), flop)


def all_plans(tiny: bool = False) -> list[Plan]:
    """All that is measured."""
    configs = settings(tiny)
    rounds = tiny or not products.BFLOAT16_IS_EMULATED  # emulated plans would take minutes
    if rounds:
        configs.insert(3, replace(configs[2], precision="bfloat16"))  # random shooting on the half-cheetah
    if torch.cuda.is_available():
        configs += [replace(config, device="cuda") for config in (configs[2], configs[-1])]
    hidden_sizes, population_size, horizon = ((8, 8), 20, 2) if tiny else ((200,) * 4, 500, 30)
    precisions = ("float32", "bfloat16") if rounds else ("float32",)
    in_pets = [pets_plan(hidden_sizes, population_size, horizon, precision) for precision in precisions]
    return [*map(mpc_plan, configs), *in_pets]


def matrix_product(size: int) -> tuple[Callable[[], object], float]:
    """The yardstick: a product of two square matrices, and its floating-point operations."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(size, size, generator=generator) for _ in range(2))
    out = torch.empty(size, size)
    return lambda: torch.mm(first, second, out=out), 2.0 * size**3


def measure(plans: Sequence[Plan], repeats: int, size: int = 2048, progress: bool = True) -> list[Row]:
    """Times the yardstick and every plan `repeats` times, in turn.

    Args:
        plans: what is timed.
        repeats: how often each is timed, after one round that isn't.
        size: of the yardstick's matrices.
        progress: show a progress bar.
    """
    product, product_flop = matrix_product(size)
    functions = [product, *(plan.function for plan in plans)]
    seconds: list[list[float]] = [[] for _ in functions]
    with torch.inference_mode():
        for repeat in tqdm(range(repeats + 1), "rounds", disable=not progress, leave=False):
            for function, times in zip(functions, seconds, strict=True):
                start = time.perf_counter()
                function()
                if repeat > 0:  # the first round allocates memory and starts threads
                    times.append(time.perf_counter() - start)
    peak = product_flop / statistics.median(seconds[0]) / 1e9
    rows = []
    for plan, times in zip(plans, seconds[1:], strict=True):
        median = statistics.median(times)
        speed = plan.flop / median / 1e9
        rows.append(
            Row(
                task=plan.task,
                search=plan.search,
                ms_per_plan=1e3 * median,
                best_ms=1e3 * min(times),
                gflop_per_plan=plan.flop / 1e9,
                gflops=speed,
                peak_gflops=peak,
                share_of_peak=speed / peak,
            )
        )
    return rows


def about() -> dict[str, str]:
    """The machine, with its GPU where plans are scored there."""
    return machine("cuda" if torch.cuda.is_available() else "cpu")


def save(rows: Sequence[Row], path: Path) -> None:
    """Writes the rows as CSV, or with the machine's description as JSON, as the ending of `path` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(row) for row in rows])
    if path.suffix == ".csv":
        table.to_csv(path, index=False, float_format="%.6g")
    else:
        path.write_text(json.dumps({**about(), "plans": table.to_dict("records")}, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes it where `--out` says."""
    parser = argparse.ArgumentParser(
        description="Milliseconds per plan, and their share of the machine's peak."
    )
    parser.add_argument("--out", type=Path, help="write the numbers to this file, .json or .csv")
    parser.add_argument("--repeats", type=int, default=15, help="how often each plan is timed (15)")
    parser.add_argument(
        "--threads", type=int, help="threads of torch; by default as many as it takes by itself"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models: does it run at all?")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}, expected at least 1")
    if options.out is not None and options.out.suffix not in (".json", ".csv"):
        parser.error(f"--out is {options.out}, expected a name that ends in .json or .csv")
    before = torch.get_num_threads()
    try:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        rows = measure(all_plans(options.tiny), options.repeats, size=64 if options.tiny else 2048)
        made_on = about()
        if options.out is not None:
            save(rows, options.out)
    finally:
        torch.set_num_threads(before)
    print(f"{made_on['machine']}, {made_on['threads']} threads; peak {rows[0].peak_gflops:.1f} GFLOP/s")
    print(f"{'task':<12}{'search':<28}{'ms/plan':>9}{'best':>9}{'GFLOP':>9}{'GFLOP/s':>9}{'of peak':>9}")
    for row in rows:
        print(
            f"{row.task:<12}{row.search:<28}{row.ms_per_plan:>9.1f}{row.best_ms:>9.1f}"
            f"{row.gflop_per_plan:>9.2f}{row.gflops:>9.1f}{row.share_of_peak:>9.0%}"
        )
    if products.BFLOAT16_IS_EMULATED and not options.tiny:
        print("bfloat16: left out, this processor has no instructions for it")
    if options.out is not None:
        print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
