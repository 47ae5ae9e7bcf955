"""The training benchmark runs, compares like with like, and writes what it says. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.bench_training import BATCH, jobs, main, mlp


def test_runs_at_a_tiny_size_and_writes_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "training.json"
    assert main(["--tiny", "--repeats", "2", "--threads", "1", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert "SAC 1 x 8, batch 8" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == len(jobs(tiny=True))
    for row in rows:
        assert row["ratio"] == pytest.approx(row["per_second"] / row["plain_per_second"])


def test_the_yardsticks_learn_too() -> None:
    """A loop that trained nothing would be a cheap yardstick: the losses have to fall on the fixed batch."""
    with torch.random.fork_rng():
        torch.manual_seed(3)  # with other weights SAC's critics may lose ground at first: their targets move
        (_, _, _, ensemble, _), (_, _, _, sac, _), *_ = jobs(tiny=True)
        for plain, least in ((ensemble, [0.1] * 2), (sac, [5.0, 0.5, 0.1])):  # members; critics, actor, alpha
            losses = torch.tensor([plain() for _ in range(100)])  # [100, losses]
            fall = losses[:10].mean(dim=0) - losses[-10:].mean(dim=0)
            assert bool((fall > torch.tensor(least)).all()), fall


def test_a_plain_network_has_the_layers_it_says() -> None:
    network = mlp((3, 8, 8, 2), torch.nn.ReLU)
    assert [type(layer).__name__ for layer in network] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert network(torch.zeros(BATCH, 3)).shape == (BATCH, 2)
