"""All weeks: further mistakes that lose points and are named, and further right ways that lose none."""

from textwrap import dedent

import pytest

from harness import lost, replace_in_solution

DRAW = "rows = torch.randint(self.size, (batch_size,), generator=generator)"
AGAIN = "torch.Generator().manual_seed(generator.initial_seed())"
LAST = "return obs + denormalize_change(network(normalize_input(inputs)))"
SCALED = "return (x - self.mean) / self.std"
START = "start = self.buffer.sample(self.config.imag_rollouts, self.generator).obs"

# week, exercise, what is replaced in the reference, by what, and a part of what the student reads
MISTAKES = {
    "every sample the same": (
        "week01",
        "ring-buffer",
        DRAW,
        DRAW.replace("=generator", f"={AGAIN}"),
        "moves on",
    ),
    "one stretch": (
        "week01",
        "ring-buffer",
        DRAW,
        f"{DRAW.replace('batch_size,', '1,')}\n        rows = (rows + torch.arange(batch_size)) % self.size",
        "each row is drawn by itself",
    ),
    "the newest most often": (
        "week01",
        "ring-buffer",
        DRAW,
        DRAW.replace("self.size", "self.capacity") + ".clamp(max=self.size - 1)",
        "equally likely",
    ),
    "more rows than there are": (
        "week01",
        "ring-buffer",
        DRAW,
        f"if batch_size > self.size:\n            raise ValueError('too many')\n        {DRAW}",
        "too many",
    ),
    "a tuple of columns": (
        "week01",
        "ring-buffer",
        "return self.data.take(rows)",
        "return tuple(column[rows] for column in self.data)",
        "expected a Batch",
    ),
    "moves by what is kept": (
        "week01",
        "ring-buffer",
        "(self.position + count)",
        "(self.position + len(kept.obs))",
        "by those that are left out",
    ),
    "normalised in place": (
        "week01",
        "normalizer",
        SCALED,
        "x -= self.mean\n        x /= self.std\n        return x",
        "the caller's x changed",
    ),
    "one threshold for all": (
        "week01",
        "normalizer",
        "x.abs().amax(dim=0).clamp",
        "x.abs().max().clamp",
        "its own dimension",
    ),
    "a threshold without absolute values": (
        "week01",
        "normalizer",
        "x.abs().amax(dim=0)",
        "x.amax(dim=0)",
        "the largest |x|",
    ),
    "a bit more than std": (
        "week01",
        "normalizer",
        SCALED,
        "return (x - self.mean) / (self.std + 1e-6)",
        "with nothing added",
    ),
    "clipped": ("week01", "normalizer", SCALED, SCALED + ".clamp(-10, 10)", None),
    "squeezed": (
        "week01",
        "predict-next-obs",
        LAST,
        f"return ({LAST[7:]}).squeeze()",
        "axes of length 1 stay",
    ),
    "normalised apart": (
        "week01",
        "predict-next-obs",
        "normalize_input(inputs)",
        "torch.cat([normalize_input(obs), action], dim=-1)",
        "state and action together",
    ),
    "no backward": ("week01", "training-step", "member_loss.sum().backward()", "pass", "were backward() and"),
    "a step for each member": (
        "week01",
        "training-step",
        "member_loss.sum().backward()\n    optimizer.step()",
        "for e in range(len(member_loss)):\n        optimizer.zero_grad()\n"
        "        member_loss[e].backward(retain_graph=True)\n        optimizer.step()",
        None,
    ),
    "gradients clipped": (
        "week01",
        "training-step",
        "optimizer.step()",
        "torch.nn.utils.clip_grad_norm_(network.parameters(), 40.0)\n    optimizer.step()",
        "not clipped",
    ),
    "predicted into obs": (
        "week01",
        "k-step-errors",
        "predicted = predict(predicted, actions[:, k])",
        "predicted[:] = predict(predicted, actions[:, k])",
        "the caller's obs changed",
    ),
    "state and action swapped": (
        "week02",
        "rollout",
        "step(current, actions[:, :, t])",
        "step(actions[:, :, t], current)",
        "step",
    ),
    "flags as numbers": (
        "week02",
        "rollout",
        "all_terminated.append(terminated)",
        "all_terminated.append(terminated.float())",
        "expected bools",
    ),
    "erased in place": (
        "week02",
        "sequence-returns",
        "return torch.where(ended == 0, rewards, torch.zeros_like(rewards)).sum(dim=-1)",
        "rewards[ended > 0] = 0\n    return rewards.sum(dim=-1)",
        "the caller's rewards changed",
    ),
    "a very low score": (
        "week02",
        "random-shooting",
        "rank_invalid_last(score_fn(action_sequences))",
        "score_fn(action_sequences).nan_to_num(-1e9, -1e9, -1e9)",
        "not a very low one",
    ),
    "nearest to zero": (
        "week02",
        "random-shooting",
        "scores.argmax()",
        "scores.abs().argmin()",
        "nearest to 0",
    ),
    "columns as tuples": (
        "week02",
        "receding-horizon",
        "obs=torch.stack(obs_)",
        "obs=tuple(obs_)",
        "expected one tensor",
    ),
    "returns sorted": (
        "week02",
        "on-policy-loop",
        "concatenate(batches), mean_returns",
        "concatenate(batches), sorted(mean_returns)",
        "in order",
    ),
    "returns first": (
        "week02",
        "on-policy-loop",
        "return concatenate(batches), mean_returns",
        "return mean_returns, concatenate(batches)",
        "first the data",
    ),
    "as many iterations as steps": (
        "week03",
        "cem-plan",
        "range(config.num_iterations)",
        "range(config.horizon)",
        "num_iterations is 10",
    ),
    "the same noise in each iteration": (
        "week03",
        "cem-plan",
        "generator=generator",
        f"generator={AGAIN}",
        "the same noise",
    ),
    "smoothed in place": (
        "week03",
        "cem-iteration",
        "new_mean = smoothing * mean + (1 - smoothing) * elite_mean",
        "new_mean = mean.mul_(smoothing).add_((1 - smoothing) * elite_mean)",
        "the caller's mean changed",
    ),
    "only one fill is refused": (
        "week03",
        "shift-plan",
        'fill not in ("repeat", "zero")',
        'fill == "wrap"',
        "expected a ValueError, but nothing was raised",
    ),
    "its own standard deviation": (
        "week03",
        "colored-noise",
        "signal / power.sqrt()",
        "signal / signal.std()",
        "theoretical one",
    ),
    "a loss without a way back": (
        "week04",
        "gaussian-nll",
        "(target - mean).square()",
        "(target - mean.detach()).square()",
        "no gradient comes through",
    ),
    "bounds that can't learn": (
        "week04",
        "bound-log-var",
        "log_var = max_log_var",
        "max_log_var = max_log_var.detach()\n    log_var = max_log_var",
        "the bounds learn, too",
    ),
    "a layer that can't learn": (
        "week04",
        "ensemble-layer",
        "torch.baddbmm(bias, ",
        "torch.baddbmm(bias.detach(), ",
        "the network learns through this",
    ),
    "an ensemble that can't learn": (
        "week04",
        "members",
        "nll.mean(dim=(1, 2))",
        "nll.detach().mean(dim=(1, 2))",
        "learn from it",
    ),
    "NaN as a large number": (
        "week04",
        "members",
        "torch.inf, holdout",
        "1e3, holdout",
        "comes after every other",
    ),
    "learned reward drawn in place": (
        "week05",
        "particle-step",
        "reward_now = prediction.reward + prediction.reward_var.sqrt() * noise",
        "reward_now = prediction.reward.add_(prediction.reward_var.sqrt() * noise)",
        "prediction.reward changed",
    ),
    "the sums of all past trials": (
        "week05",
        "trial-loop",
        "env_steps, model_calls, model_updates = trials[-1][2:] if trials else (0, 0, 0)",
        "env_steps, model_calls, model_updates = (sum(trial[i] for trial in trials) for i in (2, 3, 4))",
        "take the last one's",
    ),
    "whole returns": ("week05", "trial-loop", "float(transitions", "int(transitions", "cut off"),
    "stopped inside the clip": (
        "week06",
        "clipped-objective",
        "return torch.minimum(ratio * advantages, ratio.clamp",
        "return torch.minimum(ratio * advantages, ratio.detach().clamp",
        "within the clip the slope is r A",
    ),
    "the change alone": (
        "week06",
        "model-loss",
        "model_loss(means, data.next_obs",
        "model_loss(means - data.obs, data.next_obs",
        None,
    ),
    "an end is always trusted": (
        "week06",
        "imagined-rollouts",
        "running & trusted & finite",
        "running & (trusted | terminated) & finite",
        "is not to be trusted",
    ),
    "cut in place": (
        "week06",
        "imagined-rollouts",
        "return valid & ~terminated & ~goes_on",
        "valid &= ~goes_on\n    return valid & ~terminated",
        "the caller's valid changed",
    ),
    "ends and cuts swapped": (
        "week06",
        "dyna-ppo",
        "terminated, truncated, valid)",
        "truncated, terminated, valid)",
        "where the pole fell",
    ),
    "only the horizon cuts": (
        "week06",
        "dyna-ppo",
        "truncated = cut_short(terminated, valid)",
        "truncated = torch.zeros_like(valid)\n        truncated[-1] = valid[-1] & ~terminated[-1]",
        "cut short there",
    ),
    "one start for all": (
        "week06",
        "dyna-ppo",
        START,
        "start = self.buffer.sample(1, self.generator).obs.repeat(self.config.imag_rollouts, 1)",
        "start in the same states",
    ),
    "remembered backwards": (
        "week06",
        "dyna-ppo",
        "transitions.append(transition)",
        "transitions.insert(0, transition)",
        "order in which they came",
    ),
    "started by the buffer": (
        "week06",
        "dyna-ppo",
        "or self.ppo.counters.real_steps <",
        "or len(self.buffer) <",
        "counts real steps",
    ),
    "only the first dimension breaks down": (
        "week07",
        "branched-rollout",
        "next_obs.isfinite().all(dim=-1)",
        "next_obs[:, 0].isfinite()",
        "in any dimension",
    ),
    "a NaN reward stays": (
        "week07",
        "branched-rollout",
        "& reward.isfinite()",
        "& ~reward.isinf()",
        "drop a NaN reward",
    ),
    "widths swapped": (
        "week07",
        "retention",
        "buffer.obs_dim, buffer.action_dim",
        "buffer.action_dim, buffer.obs_dim",
        None,
    ),
    "the old buffer where nothing changes": (
        "week07",
        "retention",
        "other = ReplayBuffer(",
        "if capacity == buffer.capacity:\n        return buffer\n    other = ReplayBuffer(",
        "make a new buffer always",
    ),
    "the same rows in every step": (
        "week07",
        "learned-termination",
        "rows = balanced_rows(data.terminated, batch_size, generator)",
        "rows = balanced_rows(data.terminated, batch_size, generator) if step == 0 else rows",
        "draw a new mini-batch",
    ),
    "the clock ends it": (
        "week07",
        "learned-termination",
        "self.can_end |= data.terminated.any()",
        "self.can_end |= (data.terminated | data.truncated).any()",
        "no end was seen yet",
    ),
    "costs compared at the ends": (
        "week08",
        "budget",
        "(costs.diff(dim=1) < 0).any()",
        "(costs[:, 0] > costs[:, -1]).any()",
        "expected a ValueError",
    ),
    "a scale that can't fall": (
        "week08",
        "profile",
        "/ (reference_score - random_score)",
        "/ (reference_score - random_score).abs()",
        "whichever is larger",
    ),
    "the point decides": (
        "week08",
        "verdict",
        "if improvement.low > 0:",
        "if improvement.low > 0 and improvement.point > 0:",
        "the interval decides",
    ),
}


@pytest.fixture(autouse=True)
def way() -> None:
    """In this process alone: the weeks' own files try the judge."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake: str) -> None:
    week, exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(week, exercise, replace_in_solution(week, exercise, old, new))
    assert points > 0
    assert said is None or said in messages, messages


RIGHT = {
    "statistics in numpy": (
        "week01",
        "normalizer",
        "mean, std = x.mean(dim=0), x.std(dim=0, correction=0)  # [D]",
        "x = x.numpy()\n        mean, std = map(torch.from_numpy, (x.mean(axis=0), x.std(axis=0)))\n"
        "        x = torch.from_numpy(x)",
    ),
    "statistics copied into their places": (
        "week01",
        "normalizer",
        "self.mean = mean\n        self.std = torch.where(varies, std, torch.ones_like(std))",
        "self.mean.copy_(mean)\n        self.std.copy_(torch.where(varies, std, torch.ones_like(std)))",
    ),
    "state after state": (
        "week01",
        "predict-next-obs",
        None,
        """
        def predict_next_obs(network, normalize_input, denormalize_change, obs, action):
            if obs.dim() == 1:
                return obs + denormalize_change(network(normalize_input(torch.cat([obs, action]))))
            rows = zip(obs, action, strict=True)
            return torch.stack(
                [predict_next_obs(network, normalize_input, denormalize_change, *row) for row in rows]
            )
        """,
    ),
    "a listener by its name": (
        "week06",
        "dyna-ppo",
        "self.ppo.collect(lambda",
        "self.ppo.collect(on_step=lambda",
    ),
    "views of groups": (
        "week05",
        "ts-infinity",
        None,
        """
        def ts_inf_step(step, num_members, obs, action):
            P, N, D = obs.shape
            o, r, d = step(obs.reshape(num_members, -1, D), action.reshape(num_members, -1, action.shape[-1]))
            return o.view(P, N, D), r.view(P, N), d.view(P, N)
        """,
    ),
    "predict by its arguments' names": (
        "week07",
        "multi-step",
        "model.predict(obs[:, 0], actions)",
        "model.predict(obs=obs[:, 0], actions=actions)",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_a_right_way_keeps_all_points(way: str) -> None:
    week, exercise, old, new = RIGHT[way]
    source = dedent(new) if old is None else replace_in_solution(week, exercise, old, new)
    assert lost(week, exercise, source) == (0, "")
