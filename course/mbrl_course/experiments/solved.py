"""From which return on a task counts as solved, and why; "time to solve" means the time until then."""

from __future__ import annotations

SOLVED_AT: dict[str, float] = {
    # all 200 steps, one reward each: where MBRL-Lib's tutorial stops
    "cartpole-balance": 200.0,
    # the reward is about the cosine of the pole's angle: 100 of 200 at the most means that the pole stood for
    # some three quarters of the trial. The lower end of the 100 to 150 that a public report of PETS gives for
    # the same reward; the best planners on the true dynamics earn 152 to 154 here (planners-swingup).
    "cartpole-swingup": 100.0,
    # Gymnasium states no threshold. The best planner on the true dynamics earns -126 or more from nine of
    # ten starts, with one swing, and -230 from the tenth, with two (planners-pendulum): a trial from such a
    # start can't count as solved, the next one has to.
    "pendulum": -200.0,
    # the worse end of the -25 to -20 after twelve iterations (CS285, homework 4, problem 3)
    "obstacles": -25.0,
    # all 1000 steps, one reward each; Gymnasium's own threshold is 950
    "InvertedPendulum-v5": 1000.0,
    # Gymnasium's threshold of CartPole-v1, of 500 steps with one reward each
    "cartpole": 475.0,
}
"""By the name of the task. Where an evaluation has several episodes, their mean has to reach it."""
