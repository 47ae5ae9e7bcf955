"""Week 8's experiments: claims that are controlled comparisons, verdicts on made-up runs, shaped rewards."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch

from mbrl_course.envs import get_task
from mbrl_course.envs.cartpole import SWINGUP
from mbrl_course.experiments import ConfigError, get_config, run
from mbrl_course.experiments.tables import tables_text
from mbrl_course.experiments.variants import variant_of
from mbrl_course.experiments.verdicts import CLAIMS, RETURNS, run_scores, verdict_table
from mbrl_course.experiments.week08 import energy_potential, training_task

PETS = "clinic-pets"


def runs(variant: str, scores: list[list[float]], seconds: float = 10.0) -> pd.DataFrame:
    """Rows of `clinic-pets` whose normalised returns are `scores`, [seeds, trials]; trial 0 earns a lot."""
    scale = RETURNS[PETS]
    rows = []
    for seed, curve in enumerate(scores):
        for trial, score in enumerate([9.0, *curve]):
            value = scale.random + score * (scale.good - scale.random)
            spent = seconds * trial / len(curve)
            rows.append((seed, variant, trial, value, 200 * (trial + 1), spent))
    columns = ["seed", "variant", "trial", "eval_return", "env_steps", "cpu_seconds"]
    return pd.DataFrame(rows, columns=columns)


def test_every_claim_changes_one_setting() -> None:
    assert {claim.number for claim in CLAIMS} == set(range(1, 11))
    named = {}
    for name in RETURNS:
        config = get_config(name)
        named[name] = dict(variant_of(config, text) for text in config.variants)
    for claim in CLAIMS:
        new, old = (dataclasses.asdict(named[claim.experiment][v]) for v in (claim.variant, claim.against))
        changed = {field for field in new if new[field] != old[field]}
        if new.get("propagation") == "mean":
            changed -= {"num_particles"}  # of which the mean has one anyway
        assert len(changed) == 1, claim
    tested = {(claim.experiment, v) for claim in CLAIMS for v in (claim.variant, claim.against)}
    assert tested == {(name, variant) for name, variants in named.items() for variant in variants}


def test_scores_are_the_area_under_the_curve_or_its_end() -> None:
    rows = runs("PETS", [[0.0, 0.5, 1.0], [0.2, -40.0, 0.4]])
    torch.testing.assert_close(run_scores(PETS, rows), torch.tensor([[0.5], [0.2]]).double())
    torch.testing.assert_close(run_scores(PETS, rows, "final"), torch.tensor([[1.0], [0.4]]).double())


def test_verdicts_on_made_up_runs() -> None:
    base = [[0.4 + 0.01 * i] * 2 for i in range(8)]  # the middle half: 0.42 to 0.45
    logs = pd.concat(
        [
            runs("PETS", base),
            runs("small gain", [[2 * a, 2 * b] for a, b in base], seconds=30.0),
            runs("batch 512", [[a / 2, b / 2] for a, b in base]),
            runs("naive shaping", [base[(3 * i) % 8] for i in range(8)]),
            runs("filled with zero", base[:3]),
        ]
    )
    table = verdict_table(PETS, logs).set_index("variant")
    assert list(table["verdict"]) == ["real", "too few seeds", "not shown", "harmful"]
    assert list(table.index) == ["small gain", "PETS", "naive shaping", "batch 512"]
    assert table["score_against"].iloc[0] == pytest.approx(0.435)
    real, harmful, same = (table.loc[name] for name in ("small gain", "batch 512", "naive shaping"))
    assert real["gain"] == pytest.approx(100) and 80 < real["low"] < 100 < real["high"] < 120
    assert harmful["gain"] == pytest.approx(-50) and harmful["high"] < -40
    assert same["gain"] == 0 and same["low"] < 0 < same["high"] and same["better"] == 0.5
    assert (real["better"], harmful["better"]) == (1, 0)
    assert (real["cpu_seconds"], real["cost"], harmful["cost"]) == (30, 3, 1)
    assert (real["promised"], real["number"], real["seeds"]) == ("+15 to 25", 1, 8)
    assert table.loc["PETS", "against"] == "filled with zero" and table.loc["PETS", "seeds"] == 3
    assert "harmful" in tables_text(PETS, logs)


def test_runs_that_are_not_finished_have_no_say() -> None:
    base = [[0.4, 0.5 + 0.01 * i] for i in range(6)]
    started = runs("small gain", [[0.8, 0.8]] * 7)
    started = started[(started["seed"] < 6) | (started["trial"] < 2)]
    row = verdict_table(PETS, pd.concat([runs("PETS", base), started])).iloc[0]
    assert row["seeds"] == 6 and row["score"] == 0.8


def test_a_gain_over_nothing_has_no_percentage() -> None:
    logs = pd.concat([runs("PETS", [[-1.0]] * 5), runs("small gain", [[0.5]] * 5)])
    row = verdict_table(PETS, logs).iloc[0]
    assert row["verdict"] == "real" and pd.isna(row["gain"])


def test_bad_questions_are_refused_by_name() -> None:
    logs = runs("PETS", [[0.1]] * 5)
    with pytest.raises(ValueError, match="name is 'q1', expected one of clinic-pets, clinic-mbpo"):
        verdict_table("q1", logs)
    with pytest.raises(ValueError, match="score is 'best', expected 'area' or 'final'"):
        verdict_table(PETS, logs, "best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("clinic-pets", "shaping", "clever", "field 'shaping' is 'clever', expected one of none, naive"),
        ("clinic-pets", "init_gain", "much", "field 'init_gain' is 'much', expected a number or none"),
        ("clinic-mbpo", "variants", "x: exploration_noise=loud", "field 'exploration_noise' is 'loud'"),
        ("clinic-pets", "shaping_scale", "nan", "shaping_scale is nan, expected a finite number"),
        ("clinic-mbpo", "task", "InvertedPendulum-v5", "task is 'InvertedPendulum-v5' and shaping 'naive'"),
        ("final-comparison", "agents", "PPO,A3C", "agents holds 'A3C', expected some of random shooting"),
        ("final-comparison", "on_policy_steps", "0", "on_policy_steps is 0, expected at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(name: str, field: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_config(name, "smoke", {field: value})


@pytest.mark.parametrize(
    ("name", "variants", "message"),
    [
        ("clinic-mbpo", "MBPO:,a: lr_schedule=sudden", "lr_schedule is 'sudden', expected one of"),
        ("clinic-pets", "PETS:,a: init_gain=-1", "init_gain is -1.0, expected more than 0, or None"),
    ],
)
def test_values_that_the_agents_refuse_are_refused_before_anything_runs(
    name: str, variants: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(name, [0], "smoke", {"variants": variants}, out=None, progress=False)


@pytest.mark.parametrize("task", ["Pendulum-v1", "Pendulum"])
def test_the_task_of_a_shaped_reward_may_have_any_of_its_names(task: str) -> None:
    assert get_config("clinic-mbpo", "smoke", {"task": task}).task == task


def test_the_potential_is_the_energy_that_is_missing() -> None:
    pendulum, swingup = get_task("pendulum"), get_task("cartpole-swingup")
    ends = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # hanging, upright
    torch.testing.assert_close(energy_potential(pendulum, ends), torch.tensor([-2.0, 0.0]))
    ends = torch.tensor([[3.0, 1.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(energy_potential(swingup, ends), torch.tensor([-2.0, 0.0]))
    with pytest.raises(ValueError, match="task is 'cartpole', expected one with a potential: pendulum"):
        energy_potential(get_task("cartpole"), torch.zeros(4))


def test_a_pole_that_swings_freely_keeps_its_potential() -> None:
    """Fine steps without a force; the cart of the swing-up is made so heavy that the pole can't move it."""
    pendulum, swingup = get_task("pendulum"), get_task("cartpole-swingup")
    angle, velocity = torch.tensor(2.0, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    heavy, dt = dataclasses.replace(SWINGUP, cart_mass=1e9), 1e-4
    values = []
    for _ in range(10_000):
        _, acceleration = heavy.accelerations(angle.sin(), angle.cos(), velocity, torch.tensor(0.0))
        velocity = velocity + dt * acceleration
        angle = angle + dt * velocity
        obs = torch.stack([0 * angle, 0 * angle, angle.sin(), angle.cos(), velocity])
        values.append(energy_potential(swingup, obs))
    assert angle.cos() < -0.5 or angle > 3  # it has moved
    torch.testing.assert_close(torch.stack(values), values[0].expand(10_000), rtol=0, atol=2e-3)
    start = torch.tensor(2.0)
    state = torch.stack([start.cos(), start.sin(), torch.tensor(1.5)])[None]  # [1, 3]
    first = energy_potential(pendulum, state)
    for _ in range(40):
        assert pendulum.dynamics is not None
        state = pendulum.dynamics(state, torch.zeros(1, 1))
        # steps of 0.05 s: the energy wobbles, but the height alone would change by half
        torch.testing.assert_close(energy_potential(pendulum, state), first, rtol=0, atol=0.12)


def test_training_tasks_pay_what_their_name_says() -> None:
    task = get_task("pendulum")
    generator = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randn(2, 6, 3, generator=generator)
    action = torch.zeros(6, 1)
    before, after = energy_potential(task, obs), energy_potential(task, next_obs)
    bonuses = {"naive": 5 * after, "potential": 0.9 * 5 * after - 5 * before}
    for shaping, bonus in bonuses.items():
        shaped = training_task(task, shaping, 5.0, 0.9)  # type: ignore[arg-type]
        paid = shaped.reward(obs, action, next_obs) - task.reward(obs, action, next_obs)
        torch.testing.assert_close(paid, bonus)
    assert training_task(task, "none", 5.0, 0.9) is task


def test_all_variants_are_judged_by_the_true_reward() -> None:
    """The random trial is the same with and without shaping, and so is an actor that has learned nothing."""
    variants = "PETS:,naive: shaping=naive,potential: shaping=potential"
    frame = run(PETS, [0], "smoke", {"variants": variants}, out=None, progress=False)
    first = frame[frame["trial"] == 0]["eval_return"]
    assert len(first) == 3 and first.nunique() == 1
    variants = variants.replace("PETS", "MBPO")
    settings = {"variants": variants, "total_steps": "20", "start_steps": "30"}
    frame = run("clinic-mbpo", [0], "smoke", settings, out=None, progress=False)
    assert len(frame) == 3 and frame["eval_return"].nunique() == 1


def test_the_comparison_keeps_a_ledger_of_every_agent() -> None:
    frame = run("final-comparison", [0], "smoke", out=None, progress=False)
    assert list(frame["variant"].unique()) == list(get_config("final-comparison").agents)
    first = frame.groupby("variant").head(1).set_index("variant")["eval_return"]
    assert first["random shooting"] == first["CEM"] == first["PETS"]  # the same random trial
    last = frame.groupby("variant").tail(1).set_index("variant")
    planners, off_policy = ["random shooting", "CEM", "PETS"], ["SAC", "MBPO"]
    assert (last.loc[planners, "env_steps"] == 200).all()  # of the random trial
    assert (last.loc[off_policy, "env_steps"] == 210).all() and last.loc["PPO", "env_steps"] == 512
    calls = last["model_calls"]
    plans = 200 * 20 * 2 * 3  # 200 plans, 20 sequences, 2 iterations, 3 steps
    assert (calls["random shooting"], calls["CEM"], calls["PETS"]) == (plans, plans, 3 * plans)
    assert calls["SAC"] == calls["PPO"] == 0 < calls["MBPO"]
    assert (last.loc[["PPO", "SAC", "MBPO"], "agent_updates"] > 0).all()
    assert (last.loc[planners, "agent_updates"] == 0).all()
