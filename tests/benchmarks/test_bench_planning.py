"""The planning benchmark runs, counts its arithmetic right, and writes what it says. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.bench_planning import all_plans, main, matrix_product, mpc_plan, pets_plan, settings
from mbrl_course import products


def test_runs_at_a_tiny_size_and_writes_json_and_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    for name in ("plans.json", "plans.csv"):
        assert main(["--tiny", "--repeats", "2", "--threads", "1", "--out", str(tmp_path / name)]) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "cheetah" in printed and "CEM, 4 iterations" in printed and "PETS" in printed
    content = json.loads((tmp_path / "plans.json").read_text())
    assert content["threads"] == "1"
    table = pd.read_csv(tmp_path / "plans.csv")
    for rows in (pd.DataFrame(content["plans"]), table):
        cheetahs = 7 if torch.cuda.is_available() else 5
        assert list(rows.task) == ["obstacles"] * 2 + ["cheetah"] * cheetahs
        in_bfloat16 = list(rows.search[rows.search.str.endswith(", bfloat16")])
        assert in_bfloat16 == ["random shooting, bfloat16", "PETS, 1 iteration, bfloat16"]
        assert (rows.ms_per_plan >= rows.best_ms).all()
        assert rows.share_of_peak.to_numpy() == pytest.approx(rows.gflops / rows.peak_gflops, rel=1e-4)
        assert rows.gflops.to_numpy() == pytest.approx(1e3 * rows.gflop_per_plan / rows.ms_per_plan, rel=1e-4)


def test_the_settings_are_the_published_ones_and_their_arithmetic_is_counted() -> None:
    obstacles, obstacles_cem, cheetah, cheetah_cem = settings()
    for config in settings():
        assert (config.ensemble_size, config.hidden_sizes, config.num_sequences) == (3, (250, 250), 1000)
    assert (obstacles.horizon, cheetah.horizon) == (10, 15)
    assert obstacles_cem.cem_iterations == cheetah_cem.cem_iterations == 4
    per_state = 2 * 3 * ((4 + 2) * 250 + 250 * 250 + 250 * 4)
    assert mpc_plan(obstacles).flop == per_state * 1000 * 10
    assert mpc_plan(obstacles_cem).flop == per_state * 1000 * 10 * 4
    assert mpc_plan(cheetah).flop == 2 * 3 * ((21 + 6) * 250 + 250 * 250 + 250 * 21) * 1000 * 15
    per_particle = 2 * ((21 + 6) * 200 + 3 * 200 * 200 + 200 * 2 * 21)
    assert pets_plan().flop == per_particle * 500 * 20 * 30
    assert matrix_product(8)[1] == 2 * 8**3


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_is_measured_where_it_is_not_emulated(
    emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BFLOAT16_IS_EMULATED", emulated)
    in_bfloat16 = [plan.search for plan in all_plans() if plan.search.endswith("bfloat16")]
    assert in_bfloat16 == ([] if emulated else ["random shooting, bfloat16", "PETS, 1 iteration, bfloat16"])


@pytest.mark.parametrize("arguments", [["--out", "plans.txt"], ["--repeats", "0"]])
def test_refuses_what_makes_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert arguments[0] in capsys.readouterr().err
