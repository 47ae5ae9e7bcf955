"""The benchmark of grading, in small: it measures, and both sides give the same marks."""

from __future__ import annotations

import pytest

from benchmarks.bench_grading import measure, report


@pytest.mark.slow
def test_a_small_class() -> None:
    found = measure("light", submissions=6, sample=2, workers=2)
    assert found.same_marks == 2
    assert found.ratio > 0 and found.judge_seconds > 0 and found.stock_seconds > 0
    assert found.peak_megabytes > 50
    assert "6 in" in report(found)
