"""Every task: its torch functions against its environment, its picture, and how it is found."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from matplotlib.figure import Figure
from torch import Tensor

from mbrl_course.envs import Task, get_task, list_tasks
from mbrl_course.envs.cartpole import plot_balance, plot_swingup
from mbrl_course.envs.pictures import picture_to_array

WITH_DYNAMICS = [name for name in list_tasks() if get_task(name).dynamics is not None]
OWN = [name for name in list_tasks() if get_task(name).env_id.startswith("mbrl/")]
ENDING = ["obstacles", "cartpole", "cartpole-balance", "Hopper-v5", "InvertedPendulum-v5"]


def random_action(task: Task, generator: torch.Generator) -> Tensor:
    span = task.action_high - task.action_low
    return task.action_low + span * torch.rand(task.action_dim, generator=generator)


def collect(
    task: Task, num_steps: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random transitions: obs, action, reward, next_obs, terminated, truncated."""
    generator = torch.Generator().manual_seed(seed)
    env = task.make_env()
    obs, _ = env.reset(seed=seed)
    rows = []
    for _ in range(num_steps):
        action = random_action(task, generator)
        # one action is held for a few steps now and then, so that states far from the start are seen
        for _ in range(int(torch.randint(1, 5, (), generator=generator))):
            next_obs, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
            rows.append((obs.copy(), action.numpy(), reward, next_obs.copy(), terminated, truncated))
            obs = next_obs
            if terminated or truncated:
                obs, _ = env.reset()
                break
    env.close()
    columns = [torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)]
    obs_, action_, reward_, next_obs_ = (column.to(dtype) for column in columns[:4])
    return obs_, action_, reward_, next_obs_, columns[4], columns[5]


def reward_tolerance(name: str, dtype: torch.dtype) -> float:
    """How far float32 may move a reward: what one rounding of an observation does to it.

    Gymnasium's finite differences divide a rounded position (about 1 m, rounding 6e-8) by the time step, and
    Pendulum-v1 squares an angle up to pi and a speed up to 8 that it shows in float32.
    """
    if name == "Pendulum-v1":
        return 1e-5
    if name in ("HalfCheetah-v5", "Hopper-v5") and dtype == torch.float32:
        return 2e-4
    return 1e-5 if dtype == torch.float32 else 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", list_tasks())
def test_reward_and_end_agree_with_the_environment(name: str, dtype: torch.dtype) -> None:
    task = get_task(name)
    obs, action, reward, next_obs, terminated, _ = collect(task, 500, dtype)

    batched = task.reward(obs, action, next_obs)
    assert batched.shape == reward.shape
    assert batched.dtype == dtype
    tolerance = reward_tolerance(task.env_id, dtype)
    torch.testing.assert_close(batched, reward, rtol=tolerance, atol=tolerance)

    ended = task.terminated(next_obs)
    assert ended.dtype == torch.bool
    assert torch.equal(ended, terminated)
    if name in ENDING:
        assert terminated.any(), "the rollouts should have seen an end"


@pytest.mark.parametrize("name", WITH_DYNAMICS)
def test_true_dynamics_agree_with_the_environment(name: str) -> None:
    task = get_task(name)
    assert task.dynamics is not None
    obs, action, _, next_obs, terminated, _ = collect(task, 500, torch.float32)
    # environments that keep their state in float64 show it rounded to float32: 1e-6 of a speed of about 8
    torch.testing.assert_close(task.dynamics(obs, action), next_obs, rtol=1e-5, atol=5e-6)

    stepped, stepped_reward, stepped_end = task.step(obs, action)
    torch.testing.assert_close(stepped_reward, task.reward(obs, action, stepped))
    assert torch.equal(stepped_end, terminated)


@pytest.mark.parametrize("name", [name for name in WITH_DYNAMICS if name in OWN])
def test_own_dynamics_follow_a_whole_episode(name: str) -> None:
    """Our environments keep their state in float32: over an episode nothing but rounding drifts apart."""
    task = get_task(name)
    env = task.make_env()
    generator = torch.Generator().manual_seed(1)
    start, _ = env.reset(seed=1)
    obs = torch.as_tensor(start)
    for _ in range(task.max_steps):
        action = random_action(task, generator)
        seen, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
        obs, own_reward, own_end = task.step(obs, action)
        # the swing-up's environment rounds once per step, its batched function after each operation
        tolerance = 1e-4 if name == "cartpole-swingup" else 1e-6
        torch.testing.assert_close(obs, torch.as_tensor(seen), rtol=tolerance, atol=tolerance)
        assert own_reward.item() == pytest.approx(reward, abs=max(tolerance, 1e-5))
        assert bool(own_end) == terminated
        if terminated or truncated:
            break


@pytest.mark.parametrize("name", list_tasks())
def test_any_leading_batch_dimensions(name: str) -> None:
    task = get_task(name)
    obs, action, _, next_obs, _, _ = collect(task, 12, torch.float32)
    obs, action, next_obs = obs[:12], action[:12], next_obs[:12]
    reward, end = task.reward(obs, action, next_obs), task.terminated(next_obs)
    grid = [tensor.reshape(3, 2, 2, -1) for tensor in (obs, action, next_obs)]
    torch.testing.assert_close(task.reward(*grid), reward.reshape(3, 2, 2))
    assert torch.equal(task.terminated(grid[2]), end.reshape(3, 2, 2))
    single = task.reward(obs[0], action[0], next_obs[0])
    assert single.shape == ()
    torch.testing.assert_close(single, reward[0])
    assert task.terminated(next_obs[0]).shape == ()
    if task.dynamics is not None:
        expected = task.dynamics(obs, action)
        torch.testing.assert_close(task.dynamics(grid[0], grid[1]), expected.reshape(3, 2, 2, -1))
        torch.testing.assert_close(task.dynamics(obs[0], action[0]), expected[0])
        assert task.dynamics(obs[:0], action[:0]).shape == (0, task.obs_dim)


@pytest.mark.parametrize("name", list_tasks())
def test_description_fits_the_environment(name: str) -> None:
    task = get_task(name)
    env = task.make_env()
    assert env.observation_space.shape == (task.obs_dim,)
    assert task.action_low.shape == task.action_high.shape == (task.action_dim,)
    if isinstance(env.action_space, gym.spaces.Box):
        np.testing.assert_array_equal(env.action_space.low, task.action_low.numpy())
        np.testing.assert_array_equal(env.action_space.high, task.action_high.numpy())
    else:
        assert isinstance(env.action_space, gym.spaces.Discrete)
        grid = torch.linspace(-1, 1, 31)[:, None]
        reached = {task.to_env_action(action) for action in grid}
        assert reached == set(range(int(env.action_space.n)))
    assert env.spec is not None
    assert env.spec.max_episode_steps == task.max_steps
    env.close()


@pytest.mark.parametrize("name", list_tasks())
def test_same_seed_same_episode(name: str) -> None:
    task = get_task(name)
    first, second = (collect(task, 30, torch.float64, seed=5) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    other_seed = collect(task, 30, torch.float64, seed=6)
    assert not torch.equal(first[0][0], other_seed[0][0])


@pytest.mark.parametrize("name", OWN)
def test_own_environment_passes_gymnasiums_checker(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(get_task(name).make_env(disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("name", OWN)
def test_observations_stay_within_their_space(name: str) -> None:
    task = get_task(name)
    env = task.make_env()
    for action in (task.action_low, task.action_high):
        obs, _ = env.reset(seed=0)
        ended = False
        while not ended:
            assert obs in env.observation_space
            obs, _, terminated, truncated, _ = env.step(task.to_env_action(action))
            ended = terminated or truncated
        assert obs in env.observation_space


@pytest.mark.parametrize("name", OWN)
def test_own_environment_renders_and_refuses_bad_input(name: str) -> None:
    task = get_task(name)
    env = task.make_env(render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="before reset"):
        env.unwrapped.step(np.zeros(task.action_dim, dtype=np.float32))
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.std() > 5, "an empty picture"
    with pytest.raises(ValueError, match=rf"action has shape \[9\], expected \[{task.action_dim}\]"):
        env.unwrapped.step(np.zeros(9, dtype=np.float32))
    with pytest.raises(ValueError, match="render_mode is 'ascii'"):
        type(env.unwrapped)(render_mode="ascii")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", OWN)
def test_actions_beyond_the_limits_are_clipped(name: str) -> None:
    task = get_task(name)
    outcomes = []
    for scale in (1.0, 7.0):
        env = task.make_env(disable_env_checker=True)
        env.reset(seed=3)
        outcomes.append(env.step(np.full(task.action_dim, scale, dtype=np.float32))[0])
    np.testing.assert_array_equal(*outcomes)


@pytest.mark.parametrize("name", list_tasks())
def test_picture_changes_with_the_state(name: str) -> None:
    task = get_task(name)
    assert task.plot_state is not None
    obs, _, _, _, _, _ = collect(task, 40, torch.float32)
    first, later = (picture_to_array(task.plot_state, state) for state in (obs[0], obs[15].numpy()))
    assert first.std() > 5, "an empty picture"
    assert (first != later).any()
    with pytest.raises(ValueError, match="expected one observation"):
        task.plot_state(Figure().add_subplot(), obs[:2])


def test_get_task_by_name_id_and_case() -> None:
    assert get_task("CHEETAH") is get_task("mbrl/HalfCheetah-v0")
    assert get_task("cartpole") is get_task("CartPole-v1")
    assert get_task("halfcheetah-V5").env_id == "HalfCheetah-v5"
    assert len(set(list_tasks())) == len(list_tasks()) == 13


def test_unknown_task_lists_the_tasks() -> None:
    with pytest.raises(ValueError, match="unknown task 'walker'") as error:
        get_task("walker")
    for name in list_tasks():
        assert name in str(error.value)


def test_step_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="'cheetah' has no true dynamics"):
        get_task("cheetah").step(torch.zeros(21), torch.zeros(6))
    task = get_task("obstacles")
    with pytest.raises(ValueError, match=r"obs has shape \[5, 3\], expected \[\.\.\., 4\]"):
        task.step(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"action has shape \[5\], expected \[\.\.\., 2\]"):
        task.step(torch.zeros(5, 4), torch.zeros(5))


@pytest.mark.parametrize("name", list_tasks())
def test_tasks_can_be_pickled(name: str) -> None:
    """Workers of a parallel evaluation get their task this way."""
    copy = pickle.loads(pickle.dumps(get_task(name)))
    assert copy.name == name
    assert copy.reward is get_task(name).reward


def test_import_leaves_mujoco_alone() -> None:
    code = "import sys, mbrl_course.envs; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_swing_up_has_a_ground_without_an_end_that_stands_still() -> None:
    def marks(x: float) -> tuple[set[float], float, float]:
        ax = Figure().add_subplot()
        plot_swingup(ax, [x, 0.0, 0.0, 1.0, 0.0])
        (ground,) = ax.collections
        places = {round(float(np.asarray(path.vertices)[0, 0]), 6) for path in ground.get_paths()}
        left, right = ax.get_xlim()
        assert all(any(abs(place - edge) <= 0.5 for place in places) for edge in (left, right))
        assert left < x < right
        return places, left, right

    (first, *middle), (second, *shifted), (far, *_) = marks(0.0), marks(2.0), marks(123.4)
    assert middle[0] < shifted[0] < middle[0] + 2.0  # the cart moves in the picture before the view does
    assert {place % 0.5 for place in first | second | far} == {0.0}
    ends = Figure().add_subplot()
    plot_balance(ends, [0.0, 0.0, 0.1, 0.0])
    assert any(line.get_marker() == "|" for line in ends.lines)
