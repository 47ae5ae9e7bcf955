"""Week 7: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week07"
SQUASH = "squash"
LOSSES = "sac-losses"
ROLLOUT = "branched-rollout"
SCHEDULE = "schedule"
RETENTION = "retention"
RATIO = "real-ratio"
PENALTY = "penalty"
LENGTH = "best-length"
ENDS = "learned-termination"
MULTI = "multi-step"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    assert exercise_points(WEEK) == {
        SQUASH: 4,
        LOSSES: 8,
        ROLLOUT: 6,
        SCHEDULE: 2,
        RETENTION: 2,
        RATIO: 2,
        PENALTY: 2,
        LENGTH: 4,
        ENDS: 3,  # the bonus
        MULTI: 3,
    }


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


SLOPE = "2 * (math.log(2) - pre_tanh - softplus(-2 * pre_tanh))"
SOFT = "next_q.amin(dim=0) - temperature * next_log_prob"
FOLLOWS = "reward + gamma * ~terminated * soft_value"
ACTOR = "(temperature * log_prob - q.amin(dim=0)).mean()"
ALPHA = "-(log_temperature * (log_prob.detach() + target_entropy)).mean()"
GO_ON = "obs = batch.next_obs[~batch.terminated]"
FINITE = "batch = batch.take(next_obs.isfinite().all(dim=-1) & reward.isfinite())"
SHARE = "min(max((env_steps - start) / (end - start), 0.0), 1.0)"
ROUNDED = "int(first + share * (last - first) + 1e-9)"
START = "gamma ** (k + 1) * policy_error / (1 - gamma) ** 2 + gamma**k * policy_error / (1 - gamma)"
SIDES = "(terminated, ~terminated)"
CAN_END = "self.can_end |= data.terminated.any()"
CHANGES = "self.network(self._inputs(obs, actions)).transpose(0, 1)"

# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 7.1
    "no slope": (SQUASH, "(log_normal - log_slope)", "log_normal", "slope of tanh is missing"),
    "the slope is added": (SQUASH, "(log_normal - log_slope)", "(log_normal + log_slope)", "is added"),
    "density at the action": (
        SQUASH,
        "(pre_tanh - mean)",
        "(torch.tanh(pre_tanh) - mean)",
        "expected at u",
    ),
    "no squashing": (SQUASH, "return torch.tanh(pre_tanh),", "return pre_tanh,", "not squashed"),
    "no sum over the action": (SQUASH, ".sum(dim=-1)", "", "sum over the dimensions"),
    "mean over the action": (SQUASH, ".sum(dim=-1)", ".mean(dim=-1)", "expected the sum"),
    "sum over everything": (SQUASH, ".sum(dim=-1)", ".sum()", "one each"),
    "no log std": (SQUASH, " - log_std - 0.5", " - 0.5", "lacks its - log_std"),
    "no log 2 pi": (SQUASH, " - 0.5 * math.log(2 * math.pi)", "", "2 pi"),
    "the slope underflows": (SQUASH, SLOPE, "torch.log(1 - torch.tanh(pre_tanh) ** 2)", "underflows"),
    "a small constant": (SQUASH, SLOPE, "torch.log(1 - torch.tanh(pre_tanh) ** 2 + 1e-6)", "cuts it off"),
    "a clamp": (
        SQUASH,
        SLOPE,
        "torch.log((1 - torch.tanh(pre_tanh) ** 2).clamp(min=1e-6))",
        "cuts it off",
    ),
    "softplus that overflows": (
        SQUASH,
        "softplus(-2 * pre_tanh)",
        "torch.log(1 + torch.exp(-4 * pre_tanh) ** 0.5 ** 1)",
        "infinite",
    ),
    # 7.2
    "the larger critic in the target": (LOSSES, SOFT, SOFT.replace("amin", "amax"), "larger critic"),
    "the mean critic in the target": (LOSSES, SOFT, SOFT.replace("amin", "mean"), "mean of the critics"),
    "no entropy in the target": (LOSSES, SOFT, "next_q.amin(dim=0)", "entropy is missing"),
    "entropy with the wrong sign": (
        LOSSES,
        SOFT,
        SOFT.replace(" - temp", " + temp"),
        "it is - log_prob",
    ),
    "nothing ends": (LOSSES, FOLLOWS, "reward + gamma * soft_value", "nothing follows an end"),
    "terminated upside down": (LOSSES, FOLLOWS, "reward + gamma * terminated * soft_value", "upside down"),
    "entropy after an end": (
        LOSSES,
        FOLLOWS,
        "reward + gamma * (~terminated * next_q.amin(dim=0) - temperature * next_log_prob)",
        "after an end the entropy",
    ),
    "no discount": (LOSSES, FOLLOWS, "reward + ~terminated * soft_value", "gamma is missing"),
    "the last reward is masked": (
        LOSSES,
        FOLLOWS,
        "~terminated * (reward + gamma * soft_value)",
        "has been earned",
    ),
    "a target for each critic": (
        LOSSES,
        SOFT,
        "next_q - temperature * next_log_prob",
        "one target for both",
    ),
    "mean over the critics": (LOSSES, "mean(dim=1).sum()", "mean()", "the sum over the two critics"),
    "sum over the batch": (LOSSES, "mean(dim=1).sum()", "sum()", "expected the mean"),
    "weights are ignored": (LOSSES, "squared_error * weights", "squared_error", "no effect"),
    "weights are normalised": (
        LOSSES,
        "squared_error * weights",
        "squared_error * weights / weights.mean()",
        "sum of the weights",
    ),
    "only the smaller critic learns": (
        LOSSES,
        "squared_error.mean(dim=1).sum()",
        "(q.amin(dim=0) - target).square().mean()",
        "both shall",
    ),
    "the actor runs away": (LOSSES, ACTOR, f"-{ACTOR}", "sign is wrong"),
    "the actor believes the larger": (LOSSES, ACTOR, ACTOR.replace("amin", "amax"), "larger critic"),
    "the actor has no temperature": (
        LOSSES,
        ACTOR,
        ACTOR.replace("temperature *", ""),
        "temperature is missing",
    ),
    "the actor likes certainty": (LOSSES, ACTOR, ACTOR.replace("temperature", "-temperature"), "wrong sign"),
    "the temperature falls": (LOSSES, ALPHA, ALPHA[1:], "sign is wrong"),
    "the target is subtracted": (LOSSES, ALPHA, ALPHA.replace("() +", "() -"), "subtracted"),
    "alpha for its logarithm": (
        LOSSES,
        ALPHA,
        ALPHA.replace("(log_temperature *", "(log_temperature.exp() *"),
        "alpha stands where log alpha",
    ),
    "a gradient into the policy": (LOSSES, ALPHA, ALPHA.replace(".detach()", ""), "detach it"),
    "no gradient at all": (
        LOSSES,
        ALPHA,
        ALPHA.replace("log_temperature *", "log_temperature.detach() *"),
        "detach log_prob alone",
    ),
    "no factor 2 in the slope": (SQUASH, "2 * (math.log(2)", "(math.log(2)", "factor 2 of its form"),
    "the other softplus": (
        SQUASH,
        "softplus(-2 * pre_tanh)",
        "softplus(2 * pre_tanh)",
        "expected softplus(-2u)",
    ),
    "divided by the variance": (SQUASH, "torch.exp(-log_std)", "torch.exp(-2 * log_std)", "by the variance"),
    "squashed in place": (
        SQUASH,
        "return torch.tanh(pre_tanh),",
        "return pre_tanh.tanh_(),",
        "pre_tanh changed",
    ),
    "log-probabilities first": (
        SQUASH,
        "return torch.tanh(pre_tanh), (log_normal - log_slope).sum(dim=-1)",
        "return (log_normal - log_slope).sum(dim=-1), torch.tanh(pre_tanh)",
        "actions come first",
    ),
    "the smallest of the whole batch": (LOSSES, "next_q.amin(dim=0)", "next_q.min()", "whole batch"),
    "entropy is not discounted": (
        LOSSES,
        FOLLOWS,
        "reward + ~terminated * (gamma * next_q.amin(dim=0) - temperature * next_log_prob)",
        "gamma does not discount the entropy",
    ),
    "reward changed in place": (
        LOSSES,
        f"return {FOLLOWS}",
        "reward += gamma * ~terminated * soft_value\n    return reward",
        "reward changed",
    ),
    "axes of the critics' loss": (LOSSES, "mean(dim=1).sum()", "mean(dim=0).sum()", "the other way round"),
    "a loss for each critic": (LOSSES, "mean(dim=1).sum()", "mean(dim=1)", "the sum over the critics"),
    "a critic's loss without a way back": (
        LOSSES,
        "mean(dim=1).sum()",
        "mean(dim=1).sum().item()",
        "no gradient",
    ),
    "the actor's entropy is detached": (
        LOSSES,
        ACTOR,
        ACTOR.replace("log_prob", "log_prob.detach()"),
        "never learns to be random",
    ),
    "the actor's value is detached": (
        LOSSES,
        ACTOR,
        ACTOR.replace("(dim=0)", "(dim=0).detach()"),
        "actor_loss with respect to q is not right: no gradient",
    ),
    "no target entropy": (LOSSES, ALPHA, ALPHA.replace(" + target_entropy", ""), "target entropy is missing"),
    # 7.3
    "always the real state": (ROLLOUT, GO_ON, "obs = batch.obs[~batch.terminated]", "real state again"),
    "ended rollouts go on": (ROLLOUT, GO_ON, "obs = batch.next_obs", "ended rollouts go on"),
    "no last transition": (
        ROLLOUT,
        "batches.append(batch)",
        "batches.append(batch.take(~batch.terminated))",
        "it counts",
    ),
    "all stop with the first": (
        ROLLOUT,
        "if len(obs) == 0:",
        "if batch.terminated.any():",
        "first that ends",
    ),
    "not finite is kept": (ROLLOUT, FINITE, "pass", "drop what is not finite"),
    "only the state is looked at": (
        ROLLOUT,
        " & reward.isfinite()",
        "",
        "where a reward is infinite",
    ),
    "finite in one dimension is enough": (ROLLOUT, ".all(dim=-1)", ".any(dim=-1)", "in any dimension"),
    "what breaks down goes on": (ROLLOUT, GO_ON, "obs = next_obs[~terminated]", "given up at once"),
    "an end as truncated, too": (ROLLOUT, "torch.zeros_like(terminated)", "terminated", "the task is not"),
    "a list of batches": (ROLLOUT, "return concatenate(batches)", "return batches", "use concatenate"),
    "one step too many": (ROLLOUT, "range(length)", "range(length + 1)", "expected three times"),
    "a step with no rows": (ROLLOUT, "if len(obs) == 0:", "if False:", "no rows at all"),
    "any length": (ROLLOUT, "if length < 1:", "if False:", "expected a ValueError"),
    "truncated at the end": (
        ROLLOUT,
        "torch.zeros_like(terminated)",
        "torch.ones_like(terminated)",
        "truncated",
    ),
    "the action of another state": (
        ROLLOUT,
        "batch = Batch(obs, action,",
        "batch = Batch(obs, act(next_obs),",
        "policy is asked anew",
    ),
    # 7.4
    "rounded to the nearest": (SCHEDULE, ROUNDED, "round(first + share * (last - first))", "expected down"),
    "no clipping": (SCHEDULE, SHARE, "(env_steps - start) / (end - start)", "outside of a and b"),
    "grows for ever": (SCHEDULE, SHARE, "max((env_steps - start) / (end - start), 0.0)", "after b"),
    "below the first": (SCHEDULE, SHARE, "min((env_steps - start) / (end - start), 1.0)", "before a"),
    "divided by the second step": (SCHEDULE, "/ (end - start)", "/ end", "divided by b"),
    "the line starts at 0": (SCHEDULE, SHARE, "min(env_steps / end, 1.0)", "expected at a"),
    "a float": (SCHEDULE, ROUNDED, "float(int(first + share * (last - first) + 1e-9))", "no whole number"),
    "the rounding of floats": (SCHEDULE, " + 1e-9", "", "mind the rounding"),
    # 7.5
    "capacity without fits": (
        RETENTION,
        "num_rollouts * length * retained_fits",
        "num_rollouts * length",
        "fits are forgotten",
    ),
    "capacity of nothing": (
        RETENTION,
        "max(1, num_rollouts * length * retained_fits)",
        "num_rollouts * length * retained_fits",
        "at least 1",
    ),
    "the oldest are kept": (
        RETENTION,
        "other.write(buffer.all())",
        "other.write(buffer.all().take(slice(capacity)))",
        "the oldest are kept",
    ),
    "position stays behind": (
        RETENTION,
        "other.write(buffer.all())",
        "newest = buffer.all().take(slice(-capacity, None))\n"
        "    other.size = len(newest.obs)\n"
        "    for column, values in zip(other.data, newest, strict=True):\n"
        "        column[: other.size] = values",
        "position was not moved on",
    ),
    "newest first": (
        RETENTION,
        "other.write(buffer.all())",
        "newest = buffer.all().take(slice(-capacity, None))\n"
        "    other.write(Batch(*(column.flip(0) for column in newest)))",
        "order is reversed",
    ),
    "the memory as it lies": (
        RETENTION,
        "other.write(buffer.all())",
        "other.write(buffer.data.take(slice(buffer.size)))",
        "resized to 3",
    ),
    "the old buffer itself": (
        RETENTION,
        "    return other",
        "    buffer.data, buffer.capacity = other.data, capacity\n"
        "    buffer.size, buffer.position = other.size, other.position\n    return buffer",
        "which stays as it is",
    ),
    # 7.6
    "rounded down": (RATIO, "round(real_ratio * batch_size)", "int(real_ratio * batch_size)", "rounded down"),
    "rounded up": (
        RATIO,
        "round(real_ratio * batch_size)",
        "math.ceil(real_ratio * batch_size)",
        "rounded up",
    ),
    "two batches": (
        RATIO,
        "concatenate([buffer.sample(count, generator) for buffer, count in parts if count > 0])",
        "[buffer.sample(count, generator) for buffer, count in parts if count > 0]",
        "use concatenate",
    ),
    "the imagined share": (
        RATIO,
        "round(real_ratio * batch_size)",
        "batch_size - round(real_ratio * batch_size)",
        "these are the imagined",
    ),
    "a share of nothing": (RATIO, "batch_size if num_imagined == 0 else ", "", "nothing imagined yet"),
    "imagined first": (
        RATIO,
        "[(real, num_real), (imagined, batch_size - num_real)]",
        "[(imagined, batch_size - num_real), (real, num_real)]",
        "come first",
    ),
    "an empty buffer is asked": (RATIO, " if count > 0", "", "buffer is empty"),
    "the newest, not random ones": (
        RATIO,
        "buffer.sample(count, generator)",
        "buffer.all().take(torch.zeros(count, dtype=torch.long))",
        "not drawn at random",
    ),
    "global randomness": (RATIO, "sample(count, generator)", "sample(count)", "use generator"),
    # 7.7
    "variance for its root": (PENALTY, ".sqrt()", "", "take the root"),
    "no scale": (PENALTY, "(means, scale).sqrt()", "(means, torch.ones_like(scale)).sqrt()", "no effect"),
    "K - 1": (
        PENALTY,
        "epistemic_variance(means, scale).sqrt()",
        "(means / scale).var(dim=0).mean(dim=-1).sqrt()",
        "expected K",
    ),
    "mean of the roots": (
        PENALTY,
        "epistemic_variance(means, scale).sqrt()",
        "(means / scale).std(dim=0, correction=0).mean(dim=-1)",
        "expected after it",
    ),
    "mean over the states": (
        PENALTY,
        "epistemic_variance(means, scale).sqrt()",
        "(means / scale).var(dim=0, correction=0).mean(dim=0).sqrt()",
        "the last axis",
    ),
    "means changed in place": (
        PENALTY,
        "epistemic_variance(means, scale)",
        "epistemic_variance(means.div_(scale), torch.ones_like(scale))",
        "changed",
    ),
    "penalty taken off in place": (
        PENALTY,
        "return reward - beta * disagreement",
        "reward -= beta * disagreement\n    return reward",
        "reward changed",
    ),
    "a bonus for doubt": (PENALTY, "return reward - beta", "return reward + beta", "price is added"),
    "beta is forgotten": (
        PENALTY,
        "return reward - beta * disagreement",
        "return reward - disagreement",
        "no effect",
    ),
    "squared again": (
        PENALTY,
        "return reward - beta * disagreement",
        "return reward - beta * disagreement**2",
        "already",
    ),
    # 7.8
    "gamma to the k": (LENGTH, "gamma ** (k + 1) *", "gamma**k *", "expected k + 1"),
    "not squared": (LENGTH, "/ (1 - gamma) ** 2 +", "/ (1 - gamma) +", "expected by its square"),
    "no factor 2": (LENGTH, "2 * max_reward *", "max_reward *", "factor 2"),
    "no largest reward": (LENGTH, "2 * max_reward *", "2 *", "max_reward"),
    "the model's error helps": (LENGTH, "start + k", "start - k", "its error adds up"),
    "the model's term is squared": (
        LENGTH,
        "model_error / (1 - gamma)",
        "model_error / (1 - gamma) ** 2",
        "the model's term is divided by (1 - gamma) squared",
    ),
    "the model's error stays": (LENGTH, "k * model_error", "model_error", "lacks its factor k"),
    "errors are swapped": (
        LENGTH,
        "    k = torch.as_tensor",
        "    model_error, policy_error = policy_error, model_error\n    k = torch.as_tensor",
        "swapped",
    ),
    "any error": (
        LENGTH,
        "    _check_errors(model_error, policy_error, gamma)\n",
        "",
        "expected a ValueError",
    ),
    "at least one step": (
        LENGTH,
        "int(return_gap(lengths, model_error, policy_error, gamma).argmin())",
        "int(return_gap(lengths[1:], model_error, policy_error, gamma).argmin()) + 1",
        "left out, but it is allowed",
    ),
    "index of the lengths from 1": (
        LENGTH,
        "torch.arange(max_length + 1)",
        "torch.arange(1, max_length + 1)",
        "k = 0 is missing",
    ),
    "max_length is left out": (
        LENGTH,
        "torch.arange(max_length + 1)",
        "torch.arange(max_length)",
        "itself is left out",
    ),
    "the worst": (LENGTH, ".argmin()", ".argmax()", "largest gap"),
    "the gap": (LENGTH, "gamma).argmin())", "gamma).min())", "it is the smallest gap"),
    # 7.9
    "plain batches": (
        ENDS,
        "rows = [where.nonzero().squeeze(1) for where in (terminated, ~terminated)]",
        "rows = [torch.arange(len(terminated))] * 2",
        "half of the batch is made of ends",
    ),
    "ends come last": (ENDS, SIDES, "(~terminated, terminated)", "ends come last"),
    "only others": (ENDS, SIDES, "(~terminated, ~terminated)", "no end among them"),
    "the same end again and again": (
        ENDS,
        "torch.randint(len(r), (half,), generator=generator)",
        "torch.zeros(half, dtype=torch.long)",
        "at random",
    ),
    "global randomness of rows": (
        ENDS,
        "torch.randint(len(r), (half,), generator=generator)",
        "torch.randint(len(r), (half,))",
        "use generator",
    ),
    "each end once": (
        ENDS,
        "torch.randint(len(r), (half,), generator=generator)",
        "torch.randperm(len(r), generator=generator)[:half]",
        "with replacement",
    ),
    "the learning rate stays": (
        ENDS,
        "learning_rate * (1 - step / num_steps)",
        "learning_rate",
        "does not fall",
    ),
    "the learning rate falls at once": (ENDS, "step / num_steps", "(step + 1) / num_steps", "too early"),
    "gradients pile up": (ENDS, "            optimizer.zero_grad()\n", "", "zero_grad() called"),
    "no step of the optimizer": (ENDS, "            optimizer.step()\n", "", "nothing is learned"),
    "global randomness of batches": (
        ENDS,
        "(data.terminated, batch_size, generator)",
        "(data.terminated, batch_size)",
        "use generator",
    ),
    "plain batches in fit": (
        ENDS,
        "balanced_rows(data.terminated, batch_size, generator)",
        "torch.randint(len(data.obs), (batch_size,), generator=generator)",
        "balanced batches",
    ),
    "states before the step": (
        ENDS,
        "self.logits(data.next_obs[rows])",
        "self.logits(data.obs[rows])",
        "expected next_obs",
    ),
    "can_end is forgotten": (ENDS, CAN_END, "pass", "can_end was not set"),
    "can_end is set back": (ENDS, CAN_END, "self.can_end = data.terminated.any()", "set back"),
    "no normalizer": (ENDS, "self.normalizer.fit(data.next_obs)", "pass", "was the normalizer"),
    "upside down": (
        ENDS,
        "data.terminated[rows].float()",
        "1 - data.terminated[rows].float()",
        "upside down",
    ),
    "the last loss": (ENDS, "        return losses", "        return losses[-1:]", "one for each"),
    "always learns": (
        ENDS,
        "if not data.terminated.any() or data.terminated.all():",
        "if not data.terminated.any():",
        "Error",
    ),
    # 7.10
    "one action too few": (
        MULTI,
        "torch.tril(torch.ones(steps, steps))",
        "torch.tril(torch.ones(steps, steps), -1)",
        "knows no action",
    ),
    "the future is seen": (
        MULTI,
        "torch.tril(torch.ones(steps, steps))",
        "torch.ones(steps, steps)",
        "not hidden",
    ),
    "the past is hidden": (MULTI, "torch.tril(", "torch.triu(", "earlier actions are hidden"),
    "the latest action alone": (
        MULTI,
        "torch.tril(torch.ones(steps, steps))",
        "torch.eye(steps)",
        "latest action",
    ),
    "actions in a table": (MULTI, "* actions).flatten(2)", "* actions)", "one after the other"),
    "N comes first": (
        MULTI,
        "* actions).flatten(2)",
        "* actions).flatten(2).transpose(0, 1)",
        "k comes first",
    ),
    "reshape for transpose": (
        MULTI,
        CHANGES,
        "self.network(self._inputs(obs, actions)).reshape(len(obs), -1, obs.shape[1])",
        "use transpose(0, 1)",
    ),
    "normalised twice": (
        MULTI,
        "change_normalizer.denormalize(",
        "change_normalizer.normalize(",
        "once more",
    ),
    "changes alone": (MULTI, "return obs.unsqueeze(1) + changes", "return changes", "add s_0"),
    "changes are summed": (
        MULTI,
        "return obs.unsqueeze(1) + changes",
        "return obs.unsqueeze(1) + changes.cumsum(dim=1)",
        "since s_0",
    ),
    "still normalised": (
        MULTI,
        "self.change_normalizer.denormalize(changes.flatten(1)).view_as(changes)",
        "changes",
        "still normalised",
    ),
    "any number of actions": (MULTI, "        self._check(obs, actions)\n", "", "expected a ValueError"),
    "root of the error": (MULTI, ".mean(dim=(0, 2))", ".mean(dim=(0, 2)).sqrt()", "root was taken"),
    "sum over dimensions": (MULTI, ".mean(dim=(0, 2))", ".sum(dim=2).mean(dim=0)", "expected the mean"),
    "compared with s_0": (MULTI, "- obs[:, 1:]", "- obs[:, :-1]", "s_1 ... s_K"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_rollout_after_rollout_is_named():
    source = """
    def branched_rollout(step, act, obs, length):
        if length < 1:
            raise ValueError
        batches = []
        for row in obs.split(1):
            for _ in range(length):
                action = act(row)
                next_obs, reward, terminated = step(row, action)
                batches.append(Batch(row, action, reward, next_obs, terminated, torch.zeros_like(terminated)))
                row = next_obs
                if terminated.any():
                    break
        return concatenate(batches)
    """
    points, messages = lost(ROLLOUT, source)
    assert points == 6
    assert "side by side" in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    assert lost(SQUASH, edited(SQUASH, SLOPE, "torch.log(1 - torch.tanh(pre_tanh) ** 2 + 1e-6)"))[0] == 2
    assert lost(LOSSES, edited(LOSSES, SOFT, "next_q.amin(dim=0)"))[0] == 3
    assert lost(LOSSES, edited(LOSSES, ALPHA, ALPHA.replace(".detach()", "")))[0] == 2
    assert lost(ROLLOUT, edited(ROLLOUT, FINITE, "pass"))[0] == 2
    assert lost(SCHEDULE, edited(SCHEDULE, " + 1e-9", ""))[0] == 1
    assert lost(LENGTH, edited(LENGTH, ".argmin()", ".argmax()"))[0] == 2
    assert lost(MULTI, edited(MULTI, ".mean(dim=(0, 2))", ".mean(dim=(0, 2)).sqrt()"))[0] == 1


def test_nothing_written_earns_nothing():
    functions = {
        SQUASH: ["squash"],
        LOSSES: ["critic_target", "critic_loss", "actor_loss", "temperature_loss"],
        ROLLOUT: ["branched_rollout"],
        SCHEDULE: ["rollout_length_schedule"],
        RETENTION: ["model_buffer_capacity", "resized"],
        RATIO: ["num_real_rows", "mix_batches"],
        PENALTY: ["elite_disagreement", "penalized_reward"],
        LENGTH: ["return_gap", "best_rollout_length"],
    }
    for exercise, names in functions.items():
        stubs = [f"def {name}(*args, **kwargs):\n    raise NotImplementedError\n" for name in names]
        assert lost_points(WEEK, {exercise: "\n".join(stubs)}) == exercise_points(WEEK)[exercise]


RIGHT = {
    "squash with distributions": (
        SQUASH,
        """
        def squash(pre_tanh, mean, log_std):
            from torch.distributions import Normal
            from torch.distributions.transforms import TanhTransform

            action = torch.tanh(pre_tanh)
            log_slope = TanhTransform().log_abs_det_jacobian(pre_tanh, action)
            return action, (Normal(mean, log_std.exp()).log_prob(pre_tanh) - log_slope).sum(-1)
        """,
    ),
    "squash with logsigmoid": (
        SQUASH,
        """
        def squash(pre_tanh, mean, log_std):
            from torch.nn.functional import logsigmoid

            total = 0.0
            for u, m, s in zip(pre_tanh.unbind(-1), mean.unbind(-1), log_std.unbind(-1), strict=True):
                gauss = -((u - m) ** 2) / (2 * torch.exp(2 * s)) - s - math.log(math.sqrt(2 * math.pi))
                total = total + gauss - (math.log(4) + logsigmoid(2 * u) + logsigmoid(-2 * u))
            return pre_tanh.tanh(), total
        """,
    ),
    "losses written out": (
        LOSSES,
        """
        def critic_target(reward, terminated, next_q, next_log_prob, temperature, gamma):
            smaller = torch.minimum(next_q[0], next_q[1])
            soft = smaller - temperature * next_log_prob
            return torch.where(terminated, reward, reward + gamma * soft)

        def critic_loss(q, target, weights=None):
            loss = 0.0
            for values in q:
                error = (values - target) ** 2
                loss = loss + (error if weights is None else weights * error).mean()
            return loss

        def actor_loss(q, log_prob, temperature):
            return temperature * log_prob.mean() - torch.minimum(*q).mean()

        def temperature_loss(log_temperature, log_prob, target_entropy):
            with torch.no_grad():
                surplus = (log_prob + target_entropy).mean()
            return -log_temperature * surplus
        """,
    ),
    "losses from the library": (
        LOSSES,
        """
        def critic_target(reward, terminated, next_q, next_log_prob, temperature, gamma):
            value = next_q.min(dim=0).values - temperature * next_log_prob
            return reward + gamma * (1.0 - terminated.float()) * value

        def critic_loss(q, target, weights=None):
            weights = torch.ones_like(target) if weights is None else weights
            both = target.expand_as(q)
            errors = torch.nn.functional.mse_loss(q, both, reduction="none")
            return (weights * errors).sum() / len(target)

        def actor_loss(q, log_prob, temperature):
            return -(q.min(dim=0).values - temperature * log_prob).mean()

        def temperature_loss(log_temperature, log_prob, target_entropy):
            return (log_temperature * (-log_prob.detach() - target_entropy)).mean()
        """,
    ),
    "rollouts with a mask of those alive": (
        ROLLOUT,
        """
        def branched_rollout(step, act, obs, length):
            if not length >= 1:
                raise ValueError("length")
            columns = [[] for _ in range(6)]
            while length and obs.shape[0]:
                length -= 1
                action = act(obs)
                after, reward, done = step(obs, action)
                good = torch.isfinite(after.sum(dim=-1) + reward)
                no = torch.zeros(len(obs), dtype=torch.bool)
                for column, values in zip(columns, (obs, action, reward, after, done, no), strict=True):
                    column.append(values[good])
                obs = after[good & ~done]
            return Batch(*(torch.cat(column) for column in columns))
        """,
    ),
    "rollouts by recursion": (
        ROLLOUT,
        """
        def branched_rollout(step, act, obs, length):
            if length < 1:
                raise ValueError(f"length is {length}")
            action = act(obs)
            next_obs, reward, terminated = step(obs, action)
            keep = [i for i in range(len(obs)) if next_obs[i].isfinite().all() and reward[i].isfinite()]
            batch = Batch(obs, action, reward, next_obs, terminated, terminated & False).take(keep)
            on = batch.next_obs[batch.terminated == False]
            if length == 1 or len(on) == 0:
                return batch
            return concatenate([batch, branched_rollout(step, act, on, length - 1)])
        """,
    ),
    "the schedule in whole numbers": (
        SCHEDULE,
        """
        def rollout_length_schedule(env_steps, steps=(0, 1), lengths=(1, 1)):
            (a, b), (x, y) = steps, lengths
            t = max(a, min(env_steps, b))
            return (x * (b - a) + (t - a) * (y - x)) // (b - a)
        """,
    ),
    "the schedule by cases": (
        SCHEDULE,
        """
        from fractions import Fraction

        def rollout_length_schedule(env_steps, steps=(0, 1), lengths=(1, 1)):
            if env_steps <= steps[0]:
                return lengths[0]
            if env_steps >= steps[1]:
                return lengths[1]
            share = Fraction(env_steps - steps[0], steps[1] - steps[0])
            return math.floor(lengths[0] + share * (lengths[1] - lengths[0]))
        """,
    ),
    "retention row by row": (
        RETENTION,
        """
        def model_buffer_capacity(num_rollouts, length, retained_fits):
            capacity = num_rollouts * length * retained_fits
            return capacity if capacity > 0 else 1

        def resized(buffer, capacity):
            new = ReplayBuffer(capacity, buffer.obs_dim, buffer.action_dim)
            for row in buffer.ordered_rows().tolist():
                new.add(*(column[row] for column in buffer.data))
            return new
        """,
    ),
    "retention with a slice": (
        RETENTION,
        """
        def model_buffer_capacity(num_rollouts, length, retained_fits):
            return max(num_rollouts * length * retained_fits, 1)

        def resized(buffer, capacity):
            newest = buffer.all().take(slice(-min(capacity, len(buffer)), None))
            new = ReplayBuffer(capacity, newest.obs.shape[1], newest.action.shape[1])
            new.add(*newest)
            return new
        """,
    ),
    "mixing by cases": (
        RATIO,
        """
        def num_real_rows(batch_size, real_ratio, num_imagined):
            if num_imagined == 0:
                return batch_size
            return int(real_ratio * batch_size + 0.5)

        def mix_batches(real, imagined, batch_size, real_ratio, generator=None):
            count = num_real_rows(batch_size, real_ratio, len(imagined))
            if count == batch_size:
                return real.sample(batch_size, generator)
            if count == 0:
                return imagined.sample(batch_size, generator)
            both = real.sample(count, generator), imagined.sample(batch_size - count, generator)
            return Batch(*(torch.cat(pair) for pair in zip(*both, strict=True)))
        """,
    ),
    "mixing, the imagined drawn first": (
        RATIO,
        """
        def num_real_rows(batch_size, real_ratio, num_imagined):
            return round(batch_size * (real_ratio if num_imagined else 1.0))

        def mix_batches(real, imagined, batch_size, real_ratio, generator=None):
            count = num_real_rows(batch_size, real_ratio, len(imagined))
            parts = []
            if count < batch_size:
                parts = [imagined.sample(batch_size - count, generator)]
            if count:
                parts = [real.sample(count, generator), *parts]
            return concatenate(parts)
        """,
    ),
    "disagreement by hand": (
        PENALTY,
        """
        def elite_disagreement(means, scale):
            z = means / scale
            off = z - z.mean(dim=0)
            return (off**2).mean(dim=(0, 2)) ** 0.5

        def penalized_reward(reward, disagreement, beta):
            return torch.sub(reward, disagreement, alpha=beta)
        """,
    ),
    "disagreement in numpy": (
        PENALTY,
        """
        import numpy as np

        def elite_disagreement(means, scale):
            return np.sqrt(np.var(means.numpy() / scale.numpy(), axis=0).mean(axis=-1))

        def penalized_reward(reward, disagreement, beta):
            return [r - beta * u for r, u in zip(reward.tolist(), disagreement.tolist(), strict=True)]
        """,
    ),
    "the length in a loop": (
        LENGTH,
        """
        def return_gap(rollout_length, model_error, policy_error, gamma, max_reward=1.0):
            _check_errors(model_error, policy_error, gamma)
            k = torch.as_tensor(rollout_length).double()
            left = 1 / (1 - gamma)
            policies = policy_error * gamma**k * (gamma * left + 1) * left
            return 2 * max_reward * (policies + left * k * model_error)

        def best_rollout_length(model_error, policy_error, gamma, max_length=1000):
            gaps = [return_gap(k, model_error, policy_error, gamma).item() for k in range(max_length + 1)]
            return gaps.index(min(gaps))
        """,
    ),
    "the length by its rule": (
        LENGTH,
        """
        def return_gap(rollout_length, model_error, policy_error, gamma, max_reward=1.0):
            if not (0 <= model_error <= 1 and 0 <= policy_error <= 1 and 0 < gamma < 1):
                raise ValueError("out of range")
            k = torch.as_tensor(rollout_length, dtype=torch.float64)
            first = gamma ** (k + 1) * policy_error / (1 - gamma) ** 2
            second = gamma**k * policy_error / (1 - gamma)
            return 2 * max_reward * (first + second + k * model_error / (1 - gamma))

        def best_rollout_length(model_error, policy_error, gamma, max_length=1000):
            _check_errors(model_error, policy_error, gamma)
            k = 0
            while k < max_length and gamma**k * policy_error > model_error:
                k += 1
            return k
        """,
    ),
}


@pytest.mark.parametrize("solution", RIGHT)
def test_another_right_solution_keeps_all_points(solution):
    exercise, source = RIGHT[solution]
    assert lost(exercise, source) == (0, "")


RIGHT_BONUS = {
    "ends by multinomial": (
        ENDS,
        {
            "rows = [where.nonzero().squeeze(1) for where in (terminated, ~terminated)]": (
                "sides = torch.stack([terminated, ~terminated]).float()"
            ),
            "torch.cat([r[torch.randint(len(r), (half,), generator=generator)] for r in rows])": (
                "torch.multinomial(sides, half, True, generator=generator).flatten()"
            ),
        },
    ),
    "a scheduler and a mask": (
        ENDS,
        {
            "        self.can_end |= data.terminated.any()\n": (
                "        if bool(data.terminated.any()):\n            self.can_end.fill_(True)\n"
            ),
            '            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / num_steps)\n': (
                "            for group in optimizer.param_groups:\n"
                '                group["lr"] = learning_rate - learning_rate * step / num_steps\n'
            ),
        },
    ),
    "masks in a loop": (
        MULTI,
        {
            "    steps = actions.shape[1]\n"
            "    known = torch.tril(torch.ones(steps, steps))  # [K, K], row k - 1 has k ones\n"
            "    return (known[:, None, :, None] * actions).flatten(2)  # [K, N, K * A]\n": (
                "    rows = []\n"
                "    for k in range(1, actions.shape[1] + 1):\n"
                "        row = actions.clone()\n"
                "        row[:, k:] = 0\n"
                "        rows.append(row.reshape(len(actions), -1))\n"
                "    return torch.stack(rows)\n"
            )
        },
    ),
    "denormalised by hand": (
        MULTI,
        {
            "        changes = self.change_normalizer.denormalize(changes.flatten(1)).view_as(changes)\n"
            "        return obs.unsqueeze(1) + changes\n": (
                "        mean, std = self.change_normalizer.mean, self.change_normalizer.std\n"
                "        shape = changes.shape[1:]\n"
                "        return obs[:, None, :] + changes * std.reshape(shape) + mean.reshape(shape)\n"
            ),
            ".square().mean(dim=(0, 2))": ".pow(2).mean(dim=2).mean(dim=0)",
        },
    ),
}


@pytest.mark.parametrize("solution", RIGHT_BONUS)
def test_another_right_solution_of_a_bonus_keeps_all_points(solution):
    exercise, changes = RIGHT_BONUS[solution]
    source = harness.solution(WEEK, exercise)
    for old, new in changes.items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    assert lost(exercise, source) == (0, "")


def test_other_solutions_work_together():
    chosen = {exercise: dedent(source) for exercise, source in RIGHT.values()}
    assert set(run(WEEK, chosen).values()) == {None}
