"""The course's own tasks against independent truths: geometry, mechanics, and what planning can earn."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbrl_course.envs import cartpole, get_task, gymnasium_tasks, half_cheetah, obstacles, reacher

coordinate = st.floats(-0.99, 0.99)
move = st.floats(-1, 1)

# the walls once more, as (left, right, bottom, top), worked out by hand from (left, top, width, height)
WALLS = [
    (-0.4, 0.0, 0.5, 0.8),
    (-0.9, -0.7, -0.3, 0.3),
    (0.6, 0.72, -0.5, -0.1),
    (-0.1, 0.05, -0.2, 0.2),
    (0.1, 0.4, -0.85, -0.7),
]


def margin(x: float, y: float) -> float:
    """How far inside the free space a point is; negative in a wall or outside."""
    margins = [0.99 - abs(x), 0.99 - abs(y)]
    for left, right, bottom, top in WALLS:
        margins.append(max(left - x, x - right, bottom - y, y - top))
    return min(margins)


# ---------------------------------------------------------------------------------------------- obstacles


@given(x=coordinate, y=coordinate, dx=move, dy=move)
@settings(max_examples=500, deadline=None)
def test_a_move_is_made_unless_it_ends_in_a_wall_or_outside(x: float, y: float, dx: float, dy: float) -> None:
    obs = torch.tensor([x, y, 0.7, -0.8])
    next_obs = obstacles.dynamics(obs, torch.tensor([dx, dy]))
    end = (x + 0.1 * dx, y + 0.1 * dy)
    assert torch.equal(next_obs[2:], obs[2:])
    if margin(*end) > 1e-6:
        assert next_obs[:2].tolist() == pytest.approx(end, abs=1e-6)
    elif margin(*end) < -1e-6:
        assert torch.equal(next_obs[:2], obs[:2])


@pytest.mark.parametrize("wall", WALLS)
def test_every_wall_blocks_from_all_sides(wall: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = wall
    middle_x, middle_y = (left + right) / 2, (bottom + top) / 2
    starts = torch.tensor(
        [[left - 0.05, middle_y], [right + 0.05, middle_y], [middle_x, bottom - 0.05], [middle_x, top + 0.05]]
    )
    into = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    obs = torch.cat([starts, torch.tensor([[0.7, -0.8]]).expand(4, 2)], dim=-1)
    assert obstacles.is_free(starts).all()
    assert torch.equal(obstacles.dynamics(obs, into), obs)
    away = obstacles.dynamics(obs, -0.1 * into)
    torch.testing.assert_close(away[:, :2], starts - 0.01 * into)


def test_obstacles_end_within_a_tenth_of_the_goal_or_outside() -> None:
    goal = torch.tensor([0.7, -0.8])
    # at the goal, just within, just beyond in two directions; the last two are outside the square
    offsets = torch.tensor([[0.0, 0.0], [0.099, 0.0], [0.0, -0.101], [0.072, 0.072], [0.3, 0.0], [0.0, 3.0]])
    obs = torch.cat([goal + offsets, goal.expand(6, 2)], dim=-1)
    assert obstacles.terminated(obs).tolist() == [True, True, False, False, True, True]
    assert obstacles.terminated(torch.tensor([[0.991, 0.0, 0.7, -0.8], [0.0, -1.2, 0.7, -0.8]])).all()
    expected = -offsets.norm(dim=-1)
    torch.testing.assert_close(obstacles.reward(obs, torch.zeros(6, 2), obs), expected)


def test_obstacles_start_free_and_in_the_start_region() -> None:
    env = get_task("obstacles").make_env()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(300)])
    assert all(margin(float(x), float(y)) > -1e-6 for x, y in starts[:, :2])
    x, y = starts[:, 0], starts[:, 1]
    assert -0.991 < x.min() < -0.9 and 0.5 < x.max() < 0.591
    assert 0.259 < y.min() < 0.32 and 0.92 < y.max() < 0.991
    np.testing.assert_allclose(starts[:, 2:], [[0.7, -0.8]] * 300, atol=1e-6)


# ---------------------------------------------------------------------------------------------- cart-poles


def test_balancing_with_full_force_is_gymnasiums_cartpole() -> None:
    """With actions of ±1 the continuous cart-pole is CartPole-v1, which Gymnasium computes in float64."""
    env = gym.make("CartPole-v1")
    generator = np.random.default_rng(0)
    for seed in range(20):
        start, _ = env.reset(seed=seed)
        obs, ended = torch.as_tensor(start, dtype=torch.float64), False
        obs = torch.as_tensor(env.unwrapped.state)  # type: ignore[attr-defined]
        while not ended:
            side = int(generator.integers(2))
            seen, _, ended, _, _ = env.step(side)
            obs = cartpole.balance_dynamics(obs, torch.tensor([2.0 * side - 1.0], dtype=torch.float64))
            np.testing.assert_allclose(obs.numpy(), seen, rtol=1e-6, atol=1e-6)
            assert bool(cartpole.balance_terminated(obs)) == ended


def energy(obs: Tensor) -> Tensor:
    """Energy of cart and rod in J, written down from the rod's centre of mass and its own rotation."""
    pole = cartpole.SWINGUP
    _, velocity, sin, cos, spin = obs.unbind(-1)
    along = velocity + pole.half_length * cos * spin
    up = -pole.half_length * sin * spin
    rod_inertia = pole.pole_mass * (2 * pole.half_length) ** 2 / 12
    kinetic = pole.cart_mass * velocity**2 + pole.pole_mass * (along**2 + up**2) + rod_inertia * spin**2
    return kinetic / 2 + pole.pole_mass * pole.gravity * pole.half_length * cos


def random_swingup(number: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x, velocity, angle, spin = (
        4 * torch.rand(4, number, generator=generator, dtype=torch.float64) - 2
    ).unbind()
    angle = angle * math.pi / 2
    return torch.stack([x, velocity, angle.sin(), angle.cos(), 2 * spin], dim=-1)


def test_force_adds_just_the_work_it_does() -> None:
    """d energy / dt = force x velocity: an independent check of both accelerations at once."""
    obs = random_swingup(200).requires_grad_()
    _, velocity, sin, cos, spin = obs.unbind(-1)
    (slope,) = torch.autograd.grad(energy(obs).sum(), obs)
    for force in (-10.0, 0.0, 4.0):
        pushed = torch.full_like(velocity, force)
        acceleration, angular = cartpole.SWINGUP.accelerations(sin, cos, spin, pushed)
        flow = torch.stack([velocity, acceleration, cos * spin, -sin * spin, angular], dim=-1)
        torch.testing.assert_close((slope * flow).sum(-1), force * velocity)


def test_force_adds_just_its_momentum() -> None:
    """d momentum / dt = force, whatever the pole does: with the work done this fixes both accelerations."""
    obs = random_swingup(200, seed=1)
    _, _, sin, cos, spin = obs.unbind(-1)
    pole = cartpole.SWINGUP
    acceleration, angular = pole.accelerations(sin, cos, spin, torch.full_like(spin, 3.0))
    moment = pole.pole_mass * pole.half_length
    change = (pole.cart_mass + pole.pole_mass) * acceleration + moment * (cos * angular - sin * spin**2)
    torch.testing.assert_close(change, torch.full_like(change, 3.0))


def test_swingup_without_force_neither_gains_nor_loses_much_energy() -> None:
    obs = random_swingup(50, seed=2)
    obs[:, 1] = 0.0
    start = energy(obs)
    drift = []
    for _ in range(200):
        obs = cartpole.swingup_dynamics(obs, torch.zeros(50, 1, dtype=torch.float64))
        torch.testing.assert_close(obs[:, 2] ** 2 + obs[:, 3] ** 2, torch.ones(50, dtype=torch.float64))
        drift.append((energy(obs) - start).abs())
    # semi-implicit Euler swings around the true energy with an amplitude of first order in the step
    assert torch.stack(drift).max() < 0.35
    assert (torch.stack(drift)[-20:].mean(0) < 0.2).all()


def test_swingup_starts_hanging_and_hanging_costs_one_per_step() -> None:
    env = get_task("cartpole-swingup").make_env()
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        assert obs[3] < -0.998
        assert abs(obs[[0, 1, 2, 4]]).max() < 0.051
    rest = torch.tensor([0.5, 0.0, 0.0, -1.0, 0.0])
    action = torch.zeros(1)
    next_obs, reward, terminated = get_task("cartpole-swingup").step(rest, action)
    torch.testing.assert_close(next_obs, rest, rtol=0, atol=1e-6)
    assert reward.item() == pytest.approx(-1 - 0.01 * 0.25, abs=1e-5)
    assert not terminated


def test_the_swingup_environment_steps_like_its_batched_dynamics() -> None:
    env = cartpole.CartPoleSwingUpEnv()
    states, forces = random_swingup(500, seed=3).float(), torch.linspace(-1, 1, 500).unsqueeze(-1)
    expected = cartpole.swingup_dynamics(states, forces)
    for obs, force, next_obs in zip(states, forces, expected, strict=True):
        found = torch.from_numpy(env.next_obs(obs.numpy(), force.numpy()))
        torch.testing.assert_close(found, next_obs, rtol=1e-5, atol=1e-5)


def cem_returns(starts: Tensor, num_steps: int, generator: torch.Generator) -> Tensor:
    """Plans each of the starts [S, 5] on the true dynamics at every step by plain CEM: returns [S]."""
    sequences, horizon, iterations, elites = 500, 30, 5, 50
    task = get_task("cartpole-swingup")
    obs, num_starts = starts, len(starts)
    total, mean = torch.zeros(num_starts), torch.zeros(num_starts, horizon, 1)
    for _ in range(num_steps):
        std = torch.full_like(mean, 0.7)
        for _ in range(iterations):
            noise = torch.randn(num_starts, sequences, horizon, 1, generator=generator)
            plans = (mean[:, None] + std[:, None] * noise).clamp(-1, 1)  # [S, N, H, 1]
            state, score = obs[:, None].expand(-1, sequences, -1), torch.zeros(num_starts, sequences)
            for action in plans.unbind(2):
                state, reward, _ = task.step(state, action)
                score += reward
            best = score.topk(elites, dim=1).indices[..., None, None]  # [S, K, 1, 1]
            kept = plans.gather(1, best.expand(-1, -1, horizon, 1))
            mean, std = kept.mean(1), kept.std(1)
        obs, reward, _ = task.step(obs, mean[:, 0])
        total += reward
        mean = torch.cat([mean[:, 1:], mean[:, -1:]], dim=1)
    return total


def test_planning_swings_up() -> None:
    env = get_task("cartpole-swingup").make_env()
    starts = torch.stack([torch.as_tensor(env.reset(seed=seed)[0]) for seed in range(3)])
    returns = cem_returns(starts, 200, torch.Generator().manual_seed(0))
    assert returns.min() > 120


# ------------------------------------------------------------------------------------- discrete and sparse


def test_planned_actions_become_discrete_ones() -> None:
    to_cartpole = get_task("cartpole").to_env_action
    assert [to_cartpole(torch.tensor([a])) for a in (-1.0, -1e-6, 0.0, 1e-6, 1.0)] == [0, 0, 0, 1, 1]
    to_car = get_task("MountainCar-v0").to_env_action
    assert [to_car(torch.tensor([a])) for a in (-1.0, -0.34, -0.33, 0.33, 0.34, 1.0)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_mountain_cars_agree_from_every_state(name: str) -> None:
    """From states all over the hill, the flag and the wall on the left included."""
    task = get_task(name)
    env = task.make_env().unwrapped
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    flags, walls = 0, 0
    for _ in range(2000):
        state = generator.uniform([-1.2, -0.07], [0.6, 0.07]).astype(np.float32)
        env.state = state  # type: ignore[attr-defined]
        action = torch.as_tensor(generator.uniform(-1, 1, size=1), dtype=torch.float32)
        expected, expected_reward, expected_end = task.step(torch.as_tensor(state), action)
        seen, reward, terminated, _, _ = env.step(task.to_env_action(action))
        torch.testing.assert_close(expected, torch.as_tensor(seen), rtol=1e-5, atol=1e-6)
        assert expected_reward.item() == pytest.approx(float(reward), abs=1e-4)
        assert bool(expected_end) == terminated
        flags, walls = flags + terminated, walls + bool(seen[0] <= -1.2)
    assert flags > 20
    assert walls > 20


def test_pendulum_agrees_from_every_state() -> None:
    """Over several turns and at the limits of speed and torque, which random actions do not reach."""
    task = get_task("pendulum")
    env = task.make_env().unwrapped
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    for angle, speed, torque in generator.uniform([-9, -8, -3], [9, 8, 3], size=(1000, 3)):
        env.state = np.array([angle, speed])  # type: ignore[attr-defined]
        obs = torch.tensor([math.cos(angle), math.sin(angle), speed], dtype=torch.float64)
        action = torch.tensor([torque], dtype=torch.float64)
        expected, expected_reward, _ = task.step(obs, action)
        seen, reward, _, _, _ = env.step(action.numpy())
        np.testing.assert_allclose(expected.numpy(), seen, atol=1e-6)
        assert expected_reward.item() == pytest.approx(float(reward), abs=1e-9)


def test_an_unhealthy_hopper_earns_no_bonus() -> None:
    fallen = torch.zeros(2, 12)
    fallen[:, 1] = torch.tensor([1.2, 0.69])
    obs = fallen.clone()
    obs[:, 0] = -0.008  # one metre per second
    action = torch.ones(2, 3)
    reward = gymnasium_tasks.hopper_reward(obs, action, fallen)
    torch.testing.assert_close(reward, torch.tensor([2.0, 1.0]) - 0.003)
    assert gymnasium_tasks.hopper_terminated(fallen).tolist() == [False, True]
    broken = fallen[0].clone()
    broken[7] = torch.nan
    assert gymnasium_tasks.hopper_terminated(broken)


# ----------------------------------------------------------------------------------- cheetah, arm, figures


def test_cheetah_observation_is_of_the_state_after_the_step() -> None:
    import mujoco

    env = get_task("cheetah").make_env()
    env.reset(seed=0)
    simulated = env.unwrapped
    generator = np.random.default_rng(0)
    for _ in range(50):
        action = generator.uniform(-1, 1, size=6).astype(np.float32)
        obs, reward, *_ = env.step(action)
        model, data = simulated.model, mujoco.MjData(simulated.model)  # type: ignore[attr-defined]
        data.qpos[:], data.qvel[:] = simulated.data.qpos, simulated.data.qvel  # type: ignore[attr-defined]
        mujoco.mj_forward(model, data)
        center = data.body("torso").xipos
        np.testing.assert_allclose(obs, np.concatenate([data.qpos, data.qvel, center]), rtol=1e-6, atol=1e-6)
        thigh, shin, foot = data.qpos[6:9]
        expected = data.qvel[0] - 10 * (thigh > 0.2) - 10 * (shin > 0) - 10 * (foot > 0)
        assert reward == pytest.approx(expected, abs=1e-5)


def test_cheetah_penalties_one_by_one() -> None:
    next_obs = torch.zeros(5, 21)
    next_obs[:, 9] = 1.5
    next_obs[1, 6], next_obs[2, 7], next_obs[3, 8] = 0.21, 0.01, 0.01
    next_obs[4, 6:9] = torch.tensor([0.3, 0.3, 0.3])
    reward = half_cheetah.reward(torch.zeros(5, 21), torch.zeros(5, 6), next_obs)
    assert reward.tolist() == [1.5, -8.5, -8.5, -8.5, -28.5]


def test_cheetah_has_one_simulation_step_per_action_and_noisy_starts() -> None:
    env = get_task("cheetah").make_env()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(200)])
    assert abs(starts[:, :9]).max() <= 0.1 + 1e-6
    assert starts[:, :9].std() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    assert starts[:, 9:18].std() == pytest.approx(0.1, rel=0.1)
    env.step(np.zeros(6, dtype=np.float32))
    assert env.unwrapped.data.time == pytest.approx(0.01)  # type: ignore[attr-defined]


def test_stick_figures_stand_where_mujoco_puts_the_bodies() -> None:
    import mujoco

    generator = np.random.default_rng(0)
    cheetah = mujoco.MjData(half_cheetah.load_model())
    hopper_env = get_task("Hopper-v5").make_env().unwrapped
    hopper = mujoco.MjData(hopper_env.model)  # type: ignore[attr-defined]
    for _ in range(10):
        cheetah.qpos[:] = generator.uniform(-1, 1, size=9)
        mujoco.mj_forward(cheetah.model, cheetah)
        points = half_cheetah.limb_points(cheetah.qpos)
        for leg, place in (("back", "b"), ("front", "f")):
            for index, bone in enumerate(("thigh", "shin", "foot")):
                body = cheetah.body(place + bone).xpos[[0, 2]]
                np.testing.assert_allclose(points[leg][index], body, atol=1e-9)
            foot = cheetah.geom(place + "foot")
            half_length = cheetah.model.geom(place + "foot").size[1]
            toe = foot.xpos - half_length * foot.xmat.reshape(3, 3)[:, 2]
            np.testing.assert_allclose(points[leg][3], toe[[0, 2]], atol=1e-3)
        np.testing.assert_allclose(points["head"].mean(0), cheetah.geom("head").xpos[[0, 2]], atol=1e-3)
        np.testing.assert_allclose(points["torso"].mean(0), cheetah.body("torso").xpos[[0, 2]], atol=1e-9)

        hopper.qpos[:] = generator.uniform(-1, 1, size=6)
        mujoco.mj_forward(hopper.model, hopper)
        chain = gymnasium_tasks.hopper_points(hopper.qpos)
        np.testing.assert_allclose(chain[1], hopper.body("thigh").xpos[[0, 2]], atol=1e-9)
        for index, joint in ((2, "leg_joint"), (3, "foot_joint")):
            np.testing.assert_allclose(chain[index], hopper.joint(joint).xanchor[[0, 2]], atol=1e-9)
        np.testing.assert_allclose(chain[0], 2 * hopper.body("torso").xpos[[0, 2]] - chain[1], atol=1e-9)
        np.testing.assert_allclose(chain[4:].mean(0), hopper.geom("foot_geom").xpos[[0, 2]], atol=1e-9)


def test_arm_kinematics_agree_with_mujoco() -> None:
    import mujoco

    data = mujoco.MjData(reacher.load_model())
    generator = np.random.default_rng(0)
    angles = generator.uniform(-2, 2, size=(20, 7))
    points = reacher.arm_points(torch.as_tensor(angles)).numpy()  # [20, 8, 3]
    assert points.shape == (20, 8, 3)
    for row, expected in zip(angles, points, strict=True):
        data.qpos[:] = row
        mujoco.mj_forward(data.model, data)
        places = [data.body(joint.name).xpos for joint in reacher.ARM] + [data.site("fingertip").xpos]
        np.testing.assert_allclose(expected, np.array(places), atol=1e-9)


def test_arm_reaches_its_targets() -> None:
    """Gradient descent on the angles, kept within the joints' limits, ends at every corner of the box."""
    low, high = reacher.TARGET_LOW, reacher.TARGET_HIGH
    corners = torch.tensor(
        [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
    limits = torch.tensor([joint.limit for joint in reacher.ARM])
    free = torch.atanh(torch.tensor(reacher.REST) / limits).repeat(8, 1).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(400):
        distance = (reacher.arm_points(limits * free.tanh())[:, -1] - corners).norm(dim=-1)
        optimizer.zero_grad()
        distance.square().sum().backward()
        optimizer.step()
    assert distance.max() < 0.02


def test_reacher_observation_and_reward() -> None:
    env = get_task("reacher7").make_env()
    obs, _ = env.reset(seed=0)
    target = obs[17:].copy()
    assert (target >= np.array(reacher.TARGET_LOW) - 1e-6).all()
    assert (target <= np.array(reacher.TARGET_HIGH) + 1e-6).all()
    generator = np.random.default_rng(0)
    for _ in range(60):
        obs, reward, *_ = env.step(generator.uniform(-1, 1, size=7).astype(np.float32))
        data = env.unwrapped.data  # type: ignore[attr-defined]
        np.testing.assert_allclose(obs[:7], data.qpos, atol=1e-6)
        np.testing.assert_allclose(obs[7:14], data.qvel / 10, atol=1e-6)
        tip = reacher.arm_points(torch.as_tensor(data.qpos))[-1].numpy()
        np.testing.assert_allclose(obs[14:17], tip, atol=1e-6)
        np.testing.assert_array_equal(obs[17:], target)
        assert reward == pytest.approx(-10 * np.linalg.norm(tip - target), abs=1e-5)
    assert data.time == pytest.approx(60 * 0.02)


def test_every_joint_of_the_arm_moves_the_fingertip() -> None:
    angles = torch.tensor(reacher.REST, dtype=torch.float64) + 0.3
    jacobian = torch.autograd.functional.jacobian(lambda q: reacher.arm_points(q)[-1], angles)  # [3, 7]
    assert (jacobian.norm(dim=0) > 0.01).all()
