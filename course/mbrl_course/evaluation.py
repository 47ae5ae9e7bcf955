"""How good is it? Collecting data, evaluation runs, and statistics over a handful of seeds.

A return from one seed says little: another seed of the same code may earn half or twice as much. So the
course reports several seeds, their interquartile mean (IQM) and a bootstrap interval around it, as
recommended by Agarwal et al. (2021, "Deep reinforcement learning at the edge of the statistical precipice",
NeurIPS) and implemented in their library RLiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from mbrl_course.envs.task import Task, observed

if TYPE_CHECKING:  # week 1's module: in a class it may be the student's own, so it is imported when needed
    from mbrl_course.buffers import Batch

Policy = Callable[[Tensor], Tensor]
"""`policy(obs [D]) -> planned action [A]`."""


class Transition(NamedTuple):
    """One step in the real environment: obs [D], action [A], reward, next_obs [D] and how it ended."""

    obs: Tensor
    action: Tensor
    reward: float
    next_obs: Tensor
    terminated: bool
    truncated: bool


class Collected(NamedTuple):
    """What `collect` brings back.

    Attributes:
        data: the transitions in the order in which they happened; the last one is marked as truncated
            where it does not end an episode by itself.
        returns: the return of each episode that was begun, in order.
        mean_return: the mean of `returns`.
    """

    data: Batch
    returns: list[float]
    mean_return: float


def random_policy(task: Task, generator: torch.Generator | None = None) -> Policy:
    """A policy that draws each action uniformly between the task's bounds, whatever the state."""

    def policy(obs: Tensor) -> Tensor:
        uniform = torch.rand(task.action_dim, generator=generator)
        return task.action_low + (task.action_high - task.action_low) * uniform

    return policy


def collect(
    task: Task,
    policy: Policy,
    num_steps: int,
    generator: torch.Generator | None = None,
    *,
    on_reset: Callable[[], Any] | None = None,
    progress: bool = False,
) -> Collected:
    """Steps the real environment `num_steps` times, over as many episodes as that takes.

    The last episode is carried on to its end for the sake of its return, and what comes after the last step
    is forgotten: to count only the episodes that fit would favour short ones.

    Args:
        task: what to act in.
        policy: chooses an action [A] for a state [D].
        num_steps: N, at least 1.
        generator: source of the seeds of the episodes.
        on_reset: called at the start of each episode, so that a planner can forget its last plan.
        progress: show a progress bar.

    Returns:
        The N transitions and the returns of the episodes.

    Raises:
        ValueError: `num_steps` is below 1, or the policy's action has the wrong shape or is not finite.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, expected at least 1")
    rows: list[Transition] = []
    returns: list[float] = []
    with (
        closing(task.make_env()) as env,
        tqdm(total=num_steps, desc=f"{task.name}: collect", disable=not progress, leave=False) as bar,
    ):
        while len(rows) < num_steps:
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
            episode = list(_steps(env, task, policy, seed, on_reset, bar))
            rows += episode
            returns.append(sum(step.reward for step in episode))
    data = _stack(rows[:num_steps])
    data.truncated[-1] |= ~data.terminated[-1]
    return Collected(data, returns, float(np.mean(returns)))


def collect_random(
    task: Task, num_steps: int, generator: torch.Generator | None = None, *, progress: bool = False
) -> tuple[Batch, float]:
    """`num_steps` transitions of the random policy, and the mean return of its episodes."""
    collected = collect(task, random_policy(task, generator), num_steps, generator, progress=progress)
    return collected.data, collected.mean_return


def evaluate(
    task: Task,
    policy: Policy,
    num_episodes: int,
    seed: int = 0,
    *,
    on_reset: Callable[[], Any] | None = None,
    progress: bool = True,
) -> NDArray[np.float64]:
    """The undiscounted returns of `num_episodes` whole episodes.

    Args:
        task: what to act in.
        policy: chooses an action [A] for a state [D].
        num_episodes: n, at least 1.
        seed: episode i starts from environment seed `1000 * seed + i`, so that different policies can be
            compared on the same starts.
        on_reset: called at the start of each episode, so that a planner can forget its last plan.
        progress: show a progress bar over the steps.

    Returns:
        The returns, [n].

    Raises:
        ValueError: `num_episodes` is below 1, or the policy's action has the wrong shape or is not finite.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}, expected at least 1")
    returns = np.zeros(num_episodes)
    total = num_episodes * task.max_steps
    with (
        closing(task.make_env()) as env,
        tqdm(total=total, desc=f"{task.name}: evaluate", disable=not progress, leave=False) as bar,
    ):
        for episode in range(num_episodes):
            for step in _steps(env, task, policy, 1000 * seed + episode, on_reset, bar):
                returns[episode] += step.reward
            bar.update((episode + 1) * task.max_steps - bar.n)  # an episode may end before its limit
    return returns


def evaluate_together(
    task: Task, policy: Callable[[Tensor], Tensor], num_episodes: int, seed: int = 0
) -> NDArray[np.float64]:
    """What `evaluate` returns, for a policy that can be asked about many states at once.

    The episodes run side by side, so that a network is asked once for all of them: several times as fast.

    Args:
        task: what to act in.
        policy: chooses actions [N, A] for states [N, D], those of the episodes that are still running.
        num_episodes: n, at least 1.
        seed: episode i starts from environment seed `1000 * seed + i`.

    Returns:
        The undiscounted returns, [n].

    Raises:
        ValueError: `num_episodes` is below 1, or the policy's actions have the wrong shape or are not finite.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}, expected at least 1")
    returns = np.zeros(num_episodes)
    with ExitStack() as stack:
        envs = [stack.enter_context(closing(task.make_env())) for _ in range(num_episodes)]
        states = [env.reset(seed=1000 * seed + episode)[0] for episode, env in enumerate(envs)]
        running = list(range(num_episodes))
        while running:
            obs = torch.as_tensor(np.stack([states[i] for i in running]), dtype=torch.float32)  # [N, D]
            actions = _checked(policy(obs), (len(running), task.action_dim))  # [N, A]
            for i, action in zip(tuple(running), actions, strict=True):
                states[i], reward, terminated, truncated, _ = envs[i].step(task.to_env_action(action))
                returns[i] += float(reward)
                if terminated or truncated:
                    running.remove(i)
    return returns


class Interval(NamedTuple):
    """An estimate and its bootstrap confidence interval."""

    point: float
    low: float
    high: float


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of what is left without the lowest and the highest quarter of the scores.

    It is less shaken by one bad seed than the mean, and uses more of the data than the median (Agarwal et
    al., 2021, Section 4.3). With n scores, floor(n / 4) are dropped at each end.

    Args:
        scores: [seeds], or [seeds, tasks]; the quarters are those of all scores together.

    Raises:
        ValueError: no scores, more than two axes, or NaN among them.
    """
    from rliable import metrics

    return float(metrics.aggregate_iqm(_score_matrix("scores", scores)))


def iqm_interval(
    scores: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """The interquartile mean and its stratified percentile-bootstrap interval, by RLiable.

    Seeds are drawn with replacement, for each task by itself (stratified), `num_resamples` times; the
    interval spans the middle `confidence` of the resulting IQMs (Agarwal et al., 2021, Section 4.1).

    Args:
        scores: [seeds] or [seeds, tasks].
        confidence: coverage of the interval, in (0, 1).
        num_resamples: bootstrap repetitions.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: no scores, more than two axes, or NaN among them.
    """
    matrix = _score_matrix("scores", scores)  # [seeds, tasks]
    point, low, high = _bootstrap(matrix[:, :, None], _iqm_of_points, confidence, num_resamples, seed)
    return Interval(float(point[0]), float(low[0]), float(high[0]))


def aggregate_curves(
    curves: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """IQM over seeds, with its interval, at each point of a learning curve.

    Args:
        curves: [seeds, T], one row per seed.
        confidence: coverage of the interval at each point.
        num_resamples: bootstrap repetitions.
        seed: of the resampling.

    Returns:
        IQM, lower and upper end, each [T].

    Raises:
        ValueError: the curves are not [seeds, T], or hold NaN.
    """
    matrix = np.asarray(curves, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"curves has shape {list(matrix.shape)}, expected [seeds, T]")
    if np.isnan(matrix).any():
        raise ValueError(f"curves holds NaN in row {int(np.isnan(matrix).any(1).argmax())}")
    return _bootstrap(matrix[:, None, :], _iqm_of_points, confidence, num_resamples, seed)  # [seeds, 1, T]


def learning_curve(
    frame: pd.DataFrame, x: str = "env_steps", y: str = "eval_return", *, confidence: float = 0.95
) -> pd.DataFrame:
    """The aggregated learning curve of an experiment.

    Args:
        frame: one row per seed and point, with the columns "seed", `x` and `y`.
        x: column of the horizontal axis, environment steps as a rule.
        y: column of the score.
        confidence: coverage of the interval.

    Returns:
        One row per value of `x` that every seed has reached: the columns `x`, "iqm", "low", "high", "seeds".

    Raises:
        ValueError: a column is missing, a seed has several rows for one value of `x`, or NaN where others
            have a score, or the seeds share no value.
    """
    missing = [column for column in ("seed", x, y) if column not in frame.columns]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(frame.columns)}")
    if frame.duplicated(["seed", x]).any():
        raise ValueError(
            f"the table has several rows for one seed and {x!r}: choose one variant of them first"
        )
    measured = frame[frame.groupby(x)[y].transform("count") > 0]  # elsewhere no seed has a score, on purpose
    if measured[y].isna().any():
        row = measured[measured[y].isna()].iloc[0]
        raise ValueError(
            f"{y!r} of seed {row['seed']:g} is NaN at {x!r} = {row[x]:g}: leave failed runs out on purpose, "
            "or score them"
        )
    table = measured.pivot(index="seed", columns=x, values=y).dropna(axis="columns")
    if table.empty:
        raise ValueError(f"no value of {x!r} has been reached by every seed")
    point, low, high = aggregate_curves(table.to_numpy(), confidence=confidence)
    columns = {x: table.columns.to_numpy(), "iqm": point, "low": low, "high": high, "seeds": len(table)}
    return pd.DataFrame(columns)


def probability_of_improvement(
    scores_x: ArrayLike,
    scores_y: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """How likely it is that a run of X beats a run of Y: P(X > Y) + P(X = Y) / 2, averaged over tasks.

    This is the Mann-Whitney U statistic over the number of pairs (Agarwal et al., 2021, Section 4.3).

    Args:
        scores_x: [seeds of X] or [seeds of X, tasks].
        scores_y: [seeds of Y] or [seeds of Y, tasks].
        confidence: coverage of the interval.
        num_resamples: bootstrap repetitions.
        seed: of the resampling.

    Raises:
        ValueError: no scores, more than two axes, NaN among them, or different numbers of tasks.
    """
    first, second = _score_matrix("scores_x", scores_x), _score_matrix("scores_y", scores_y)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"scores_x has {first.shape[1]} tasks, scores_y {second.shape[1]}: expected the same"
        )

    def statistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        difference = x[:, None] - y[None, :]  # [seeds of X, seeds of Y, tasks]
        return np.array([np.mean((np.sign(difference) + 1) / 2)])

    point, low, high = _bootstrap([first, second], statistic, confidence, num_resamples, seed)
    return Interval(float(point[0]), float(low[0]), float(high[0]))


def summary(frame: pd.DataFrame, by: str, y: str = "return") -> pd.DataFrame:
    """One row per group: seeds, IQM with its interval, median, worst and best.

    Args:
        frame: one row per group and seed, with the columns `by` and `y`.
        by: column of the groups, such as "planner".
        y: column of the score.

    Returns:
        The columns `by`, "seeds", "iqm", "low", "high", "median", "worst", "best", in the groups' own order.
    """
    rows = []
    for name, group in frame.groupby(by, sort=False):
        scores = group[y].to_numpy(dtype=np.float64)
        point, low, high = iqm_interval(scores)
        spread = (float(np.median(scores)), scores.min(), scores.max())
        rows.append((name, len(scores), point, low, high, *spread))
    columns = [by, "seeds", "iqm", "low", "high", "median", "worst", "best"]
    return pd.DataFrame(rows, columns=columns)


def _steps(
    env: gym.Env,
    task: Task,
    policy: Policy,
    seed: int,
    on_reset: Callable[[], Any] | None = None,
    bar: Any = None,
) -> Iterator[Transition]:
    """Steps through one episode until it is terminated or truncated."""
    first, _ = env.reset(seed=seed)
    obs = observed(first)  # [D]
    if on_reset is not None:
        on_reset()
    done = False
    while not done:
        action = _checked(policy(obs), (task.action_dim,))
        after, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
        next_obs = observed(after)
        if bar is not None and bar.n < bar.total:
            bar.update()
        # cloned, since a row of a planner's action sequences would keep all of them in memory
        yield Transition(obs, action.clone(), float(reward), next_obs, bool(terminated), bool(truncated))
        obs, done = next_obs, terminated or truncated


def _checked(action: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A policy's action or actions, if they are of this shape and finite."""
    if action.shape != shape:
        raise ValueError(
            f"the policy's action has shape {list(action.shape)}, expected {list(shape)} "
            "(a planner returns [H, A]: take its first row)"
        )
    if not bool(torch.isfinite(action).all()):
        raise ValueError(f"the policy's action is {action.tolist()}, expected finite numbers")
    return action


def _stack(steps: list[Transition]) -> Batch:
    from mbrl_course.buffers import Batch

    return Batch(
        obs=torch.stack([step.obs for step in steps]),  # [N, D]
        action=torch.stack([step.action for step in steps]),  # [N, A]
        reward=torch.tensor([step.reward for step in steps], dtype=torch.float32),
        next_obs=torch.stack([step.next_obs for step in steps]),
        terminated=torch.tensor([step.terminated for step in steps]),
        truncated=torch.tensor([step.truncated for step in steps]),
    )


def _score_matrix(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim not in (1, 2) or matrix.size == 0:
        raise ValueError(f"{name} has shape {list(matrix.shape)}, expected [seeds] or [seeds, tasks]")
    if np.isnan(matrix).any():
        raise ValueError(f"{name} holds NaN: leave failed runs out on purpose, or score them")
    return matrix[:, None] if matrix.ndim == 1 else matrix  # [seeds, tasks]


def _iqm_of_points(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The IQM over seeds and tasks at each point: [seeds, tasks, T] -> [T]."""
    ordered = np.sort(scores.reshape(-1, scores.shape[-1]), axis=0)  # [seeds * tasks, T]
    dropped = len(ordered) // 4  # at each end, as scipy.stats.trim_mean does it, in a tenth of the time
    return np.asarray(ordered[dropped : len(ordered) - dropped].mean(axis=0))


def _bootstrap(
    scores: NDArray[np.float64] | list[NDArray[np.float64]],
    statistic: Callable[..., NDArray[np.float64]],
    confidence: float,
    num_resamples: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    from rliable import library

    with _numpy_seed(seed):
        points, intervals = library.get_interval_estimates(
            {"scores": scores}, statistic, reps=num_resamples, confidence_interval_size=confidence
        )
    return points["scores"], intervals["scores"][0], intervals["scores"][1]


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """RLiable resamples from NumPy's global generator: seeds it, and puts its state back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
