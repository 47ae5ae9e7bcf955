"""Week 6: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week06"
GAE = "advantages"
CLIP = "clipped-objective"
LOSS = "model-loss"
ROLLOUTS = "imagined-rollouts"
GATE = "gate"
DYNA = "dyna-ppo"
WORST = "worst-case"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    points = {GAE: 5, CLIP: 4, LOSS: 4, ROLLOUTS: 6, GATE: 4, DYNA: 4, WORST: 3}
    assert exercise_points(WEEK) == points
    assert sum(points.values()) == 30


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


DELTAS = "rewards + gamma * next_values * ~terminated - values"
GOES_ON = "~(terminated | truncated)"
RECURSION = "deltas[t] + gamma * gae_lambda * goes_on[t] * following"
OBJECTIVE = "torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)"
ERROR = "((means.mean(dim=0) - next_obs) / scale).square().mean(dim=-1)"
VALID = "running & trusted & finite"
SCALED = "split_variance(means / scale, torch.zeros_like(means))"
UPDATES = "self.ppo.update(self.imagine(), self.config.imag_epochs)"
ROBUST = "worst_case(rank_invalid_last(returns), num_members)"

# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 6.1
    "no recursion": (GAE, RECURSION, "deltas[t]", "one-step surprises"),
    "forwards in time": (GAE, "range(len(rewards) - 1, -1, -1)", "range(len(rewards))", "expected backwards"),
    "lambda without gamma": (GAE, RECURSION, RECURSION.replace("gamma * ", "", 1), "expected gamma * lambda"),
    "gamma without lambda": (GAE, RECURSION, RECURSION.replace("gae_lambda * ", ""), "one of the two"),
    "neither gamma nor lambda": (GAE, RECURSION, "deltas[t] + goes_on[t] * following", "added as it is"),
    "rows in reversed order": (
        GAE,
        "advantages[t] =",
        "advantages[len(rewards) - 1 - t] =",
        "in reversed order",
    ),
    "the last row is left out": (
        GAE,
        "range(len(rewards) - 1,",
        "range(len(rewards) - 2,",
        "the last row is left out",
    ),
    "targets of the value": (GAE, "    return advantages", "    return advantages + values", "added again"),
    "the next row of values": (
        GAE,
        DELTAS,
        DELTAS.replace("next_values", "torch.cat([values[1:], 0 * values[:1]])"),
        "next_values",
    ),
    "an end anywhere cuts all": (
        GAE,
        RECURSION,
        "deltas[t] + gamma * gae_lambda * following * bool(goes_on[t].all())",
        "use a mask [N]",
    ),
    "no baseline": (GAE, DELTAS, DELTAS.replace(" - values", ""), "without - V(s)"),
    "no discount": (GAE, DELTAS, DELTAS.replace("gamma * ", ""), "not discounted"),
    "the end does not mask": (GAE, DELTAS, DELTAS.replace(" * ~terminated", ""), "terminated masks"),
    "the clock masks": (GAE, DELTAS, DELTAS.replace("~terminated", GOES_ON), "truncated masks the bootstrap"),
    "leaks over the end": (GAE, GOES_ON, "~truncated", "leaks into this one"),
    "leaks over the clock": (GAE, GOES_ON, "~terminated", "leaks into this one, though"),
    "the clock wins where both are marked": (
        GAE,
        DELTAS,
        "rewards + gamma * next_values * (~terminated | truncated) - values",
        "it counts as terminated",
    ),
    "the next step is cut": (GAE, "goes_on[t] *", "goes_on[t - 1] *", "advantages"),
    "the arguments are changed": (
        GAE,
        f"deltas = {DELTAS}",
        "next_values *= ~terminated\n    deltas = rewards + gamma * next_values - values",
        "next_values changed",
    ),
    # 6.2
    "no clip": (CLIP, OBJECTIVE, "ratio * advantages", "nothing is clipped"),
    "no min": (CLIP, OBJECTIVE, "ratio.clamp(1 - clip, 1 + clip) * advantages", "can't turn back"),
    "min of the ratios": (
        CLIP,
        OBJECTIVE,
        "torch.minimum(ratio, ratio.clamp(1 - clip, 1 + clip)) * advantages",
        "min is taken of the ratios",
    ),
    "clipped from above": (CLIP, "clamp(1 - clip, 1 + clip)", "clamp(max=1 + clip)", "from above only"),
    "upside down": (CLIP, "log_ratio.exp()", "(-log_ratio).exp()", "upside down"),
    "log_ratio changed in place": (CLIP, "log_ratio.exp()", "log_ratio.exp_()", "log_ratio changed"),
    "no gradient": (CLIP, "log_ratio.exp()", "log_ratio.detach().exp()", "PPO would learn nothing"),
    "maximum": (CLIP, "torch.minimum", "torch.maximum", "expected the minimum"),
    "no exponential": (CLIP, "log_ratio.exp()", "log_ratio", "take exp"),
    "clip of the logarithm": (
        CLIP,
        "ratio.clamp(1 - clip, 1 + clip)",
        "log_ratio.clamp(-clip, clip).exp()",
        "logarithm is clipped",
    ),
    "a loss": (CLIP, "return torch.minimum", "return -torch.minimum", "to be maximised"),
    "averaged": (CLIP, OBJECTIVE, OBJECTIVE + ".mean()", "one number for each row"),
    "a clip of 0.2 always": (CLIP, "1 - clip, 1 + clip", "0.8, 1.2", "with clip 0.1"),
    # 6.3
    "no scale": (LOSS, ERROR, ERROR.replace(" / scale", ""), "scale has no effect"),
    "mean of the errors": (
        LOSS,
        ERROR,
        "((means - next_obs) / scale).square().mean(dim=(0, 2))",
        "error of their",
    ),
    "the first member": (LOSS, "means.mean(dim=0)", "means[0]", "only the first member"),
    "averaged before it is squared": (LOSS, ".square().mean(dim=-1)", ".mean(dim=-1).square()", "cancel"),
    "mean over the transitions": (LOSS, ".square().mean(dim=-1)", ".square().mean(dim=0)", "the last axis"),
    "chunks": (LOSS, "tensor_split(num_groups)", "chunk(num_groups)", "chunk makes groups of"),
    "summed over dimensions": (
        LOSS,
        ".square().mean(dim=-1)",
        ".square().sum(dim=-1)",
        "expected their mean",
    ),
    "averaged over transitions": (LOSS, ".square().mean(dim=-1)", ".square().mean()", "each transition, [N]"),
    "absolute error": (LOSS, ".square()", ".abs()", "not squared"),
    "root": (LOSS, ".square().mean(dim=-1)", ".square().mean(dim=-1).sqrt()", "it is the root"),
    "newest first": (
        LOSS,
        "loss.tensor_split(num_groups)",
        "loss.flip(0).tensor_split(num_groups)",
        "newest come",
    ),
    "all members": (LOSS, "data.action, model.elites", "data.action", "expected the elites"),
    "groups of a size": (LOSS, "tensor_split(num_groups)", "split(num_groups)", "not groups of that size"),
    "no units": (
        LOSS,
        "model.target_normalizer.std[: model.obs_dim]",
        "torch.ones(model.obs_dim)",
        "no effect",
    ),
    "the reward's unit, too": (LOSS, "std[: model.obs_dim]", "std", "RuntimeError"),
    "strided groups": (
        LOSS,
        "loss.tensor_split(num_groups)",
        "(loss[g::num_groups] for g in range(num_groups))",
        "expected neighbours",
    ),
    # 6.4
    "from the real states again": (
        ROLLOUTS,
        "        obs = next_obs\n",
        "        pass\n",
        "go on from next_obs",
    ),
    "termination is forgotten": (ROLLOUTS, "running = valid & ~terminated", "running = valid", "ignored"),
    "the last step does not count": (ROLLOUTS, VALID, VALID + " & ~terminated", "falling is bad"),
    "trust is forgotten": (ROLLOUTS, VALID, "running & finite", "trusted is ignored"),
    "NaN is believed": (ROLLOUTS, VALID, "running & trusted", "NaN is taken for a prediction"),
    "one finite dimension": (ROLLOUTS, ".all(dim=-1)", ".any(dim=-1)", "one finite dimension is enough"),
    "stops when all are over": (
        ROLLOUTS,
        "        obs = next_obs\n",
        "        obs = next_obs\n        if not running.any():\n            break\n",
        "H rows, also if all are over",
    ),
    "a tuple": (
        ROLLOUTS,
        "ImaginedRollouts(*(torch.stack(column) for column in zip(*columns, strict=True)))",
        "tuple(torch.stack(column) for column in zip(*columns, strict=True))",
        "expected ImaginedRollouts",
    ),
    "columns in another order": (
        ROLLOUTS,
        "(obs, action, log_prob, reward, next_obs",
        "(obs, action, reward, log_prob, next_obs",
        "order of the columns",
    ),
    "every valid step is cut": (ROLLOUTS, " & ~goes_on", "", "every valid step is marked"),
    "rollouts wake up": (
        ROLLOUTS,
        "running = valid & ~terminated",
        "running = running & ~terminated",
        "stays over",
    ),
    "a mask by multiplication": (
        ROLLOUTS,
        "torch.where(valid, reward, 0.0)",
        "reward * valid",
        "reward",
    ),
    "the dead move on": (
        ROLLOUTS,
        "        next_obs = torch.where(valid.unsqueeze(-1), next_obs, obs)\n",
        "        next_obs = torch.where(next_obs.isfinite(), next_obs, 0.0)\n",
        "repeats obs",
    ),
    "rewards of the dead": (ROLLOUTS, "torch.where(valid, reward, 0.0)", "reward.nan_to_num()", "reward"),
    "the dead end again": (ROLLOUTS, ", terminated & valid", ", terminated", "terminated"),
    "an infinite reward is believed": (ROLLOUTS, " & reward.isfinite()", "", "infinite"),
    "a step too many": (ROLLOUTS, "range(horizon)", "range(horizon + 1)", "expected 4"),
    "the horizon is an end": (
        ROLLOUTS,
        "torch.zeros_like(valid[:1])",
        "torch.ones_like(valid[:1])",
        "the horizon cuts short is not marked",
    ),
    "cut where it terminated": (
        ROLLOUTS,
        "valid & ~terminated & ~goes_on",
        "valid & ~goes_on",
        "not cut short",
    ),
    "cut at the first invalid step": (
        ROLLOUTS,
        "return valid & ~terminated & ~goes_on",
        "before = torch.cat([torch.zeros_like(valid[:1]), (valid & ~terminated)[:-1]])\n"
        "    at_end = valid & ~terminated & ~goes_on\n    at_end[:-1] = False\n"
        "    return (before & ~valid) | at_end",
        "expected the last one that is",
    ),
    "only the horizon cuts": (
        ROLLOUTS,
        "return valid & ~terminated & ~goes_on",
        "cut = torch.zeros_like(valid)\n    cut[-1] = valid[-1] & ~terminated[-1]\n    return cut",
        "only the horizon",
    ),
    # 6.5
    "variance without scale": (GATE, "means / scale", "means", "scale has no effect"),
    "variance over E - 1": (
        GATE,
        f"parts = {SCALED}\n    return parts.epistemic.mean(dim=-1)",
        "return (means / scale).var(dim=0).mean(dim=-1)",
        "E - 1",
    ),
    "variance summed": (
        GATE,
        "parts.epistemic.mean(dim=-1)",
        "parts.epistemic.sum(dim=-1)",
        "expected their mean",
    ),
    "root of the mean": (
        GATE,
        "parts.epistemic.mean(dim=-1)",
        "parts.epistemic.mean(dim=-1).sqrt()",
        "expected the variance",
    ),
    "variance over the states": (
        GATE,
        f"parts = {SCALED}\n    return parts.epistemic.mean(dim=-1)",
        "return (means / scale).var(dim=1, correction=0).mean(dim=-1)",
        "over the members",
    ),
    "means changed in place": (GATE, "means / scale", "means.div_(scale)", "means changed"),
    "largest dimension": (
        GATE,
        "parts.epistemic.mean(dim=-1)",
        "parts.epistemic.amax(dim=-1)",
        "largest dimension",
    ),
    "standard deviation": (GATE, "parts.epistemic.mean", "parts.epistemic.sqrt().mean", "standard deviation"),
    "aleatoric part": (GATE, "parts.epistemic", "parts.aleatoric", "epistemic_variance"),
    "a value for each dimension": (GATE, "parts.epistemic.mean(dim=-1)", "parts.epistemic", "average over"),
    "gate the wrong way round": (GATE, "variance <= tau", "variance > tau", "wrong way round"),
    "strictly below": (GATE, "variance <= tau", "variance < tau", "just tau is held back"),
    "NaN passes": (GATE, "variance <= tau", "~(variance > tau)", "NaN passes"),
    "gate on the deviation": (GATE, "variance <= tau", "variance.sqrt() <= tau", "expected the variance"),
    # 6.6
    "fitted before remembering": (
        DYNA,
        "self.remember(transitions)\n",
        "self.config.use_model and self.fit_model()\n        self.remember(transitions)\n",
        "",
    ),
    "nothing is learned from reality": (
        DYNA,
        "self.ppo.update(batch)\n",
        "\n",
        "not updated on the real batch",
    ),
    "one imagined batch for all": (
        DYNA,
        f"        for _ in range(self.config.imag_batches):\n            {UPDATES}",
        "        imagined = self.imagine()\n        for _ in range(self.config.imag_batches):\n"
        "            self.ppo.update(imagined, self.config.imag_epochs)",
        "a fresh batch for each update",
    ),
    "imagines before the fit": (
        DYNA,
        "        self.fit_model()\n        for _ in range(self.config.imag_batches):\n"
        + f"            {UPDATES}",
        f"        for _ in range(self.config.imag_batches):\n            {UPDATES}\n        self.fit_model()",
        "imagines before the model is fitted",
    ),
    "forgets": (DYNA, "self.remember(transitions)", "self.remember(transitions[-1:])", "list of all 8"),
    "fitted to all that was ever visited": (
        DYNA,
        "data = self.buffer.all()",
        "data = self.visited.all()",
        "self.buffer, which forgets",
    ),
    "imagines from all that was ever visited": (
        DYNA,
        "self.buffer.sample(",
        "self.visited.sample(",
        "each start to the buffer's states",
    ),
    "no model is ignored": (DYNA, "not self.config.use_model or ", "", "plain PPO"),
    "starts at once": (DYNA, " or self.ppo.counters.real_steps < self.config.model_start", "", "model_start"),
    "starts too late": (DYNA, "real_steps < self", "real_steps <= self", "model_start"),
    "passes of the real batch": (
        DYNA,
        "self.imagine(), self.config.imag_epochs",
        "self.imagine()",
        "imag_epochs",
    ),
    "updates are not counted": (
        DYNA,
        "self.ppo.counters.model_updates += fit.num_updates",
        "pass",
        "model_updates",
    ),
    "fitted to a part": (
        DYNA,
        "data = self.buffer.all()",
        "data = self.buffer.sample(16, self.generator)",
        "all of the buffer",
    ),
    "the learned end stays as it is": (DYNA, "if self.learned_end is not None:", "if False:", "learned_end"),
    "all imagined steps count": (
        DYNA,
        "int(rollouts.valid.sum())",
        "rollouts.valid.numel()",
        "not valid, too",
    ),
    "the horizon is the end of the world": (
        DYNA,
        "cut_short(terminated, valid)",
        "torch.zeros_like(terminated)",
        "cut_short",
    ),
    "valid before truncated": (
        DYNA,
        "terminated, truncated, valid)\n",
        "terminated, valid, truncated)\n",
        "in this order",
    ),
    "starts behind the end": (
        DYNA,
        "self.generator).obs\n",
        "self.generator).next_obs\n",
        "nothing follows an end",
    ),
    "what is not ended is truncated": (DYNA, "cut_short(terminated, valid)", "~terminated", "ends once"),
    "starts from nowhere": (
        DYNA,
        "self.buffer.sample(self.config.imag_rollouts, self.generator).obs",
        "torch.zeros(self.config.imag_rollouts, 4)",
        "nearest real state",
    ),
    "global randomness": (
        DYNA,
        "self.buffer.sample(self.config.imag_rollouts, self.generator).obs",
        "self.buffer.all().obs[torch.randint(len(self.buffer), (self.config.imag_rollouts,))]",
        "use self.generator",
    ),
    # 6.7
    "mean over the members": (WORST, ROBUST, "returns.mean(dim=0)", "expected the worst"),
    "best member": (WORST, ROBUST, "returns.amax(dim=0)", "best member"),
    "the first member only": (WORST, ROBUST, "returns[0]", "first member"),
    "values and indices": (WORST, ROBUST, "rank_invalid_last(returns).min(dim=0)", "is a pair"),
    "a very low number": (
        WORST,
        "rank_invalid_last(returns)",
        "returns.nan_to_num(nan=-1e9, posinf=-1e9, neginf=-1e9)",
        "a very low number",
    ),
    "a score for each member": (WORST, ROBUST, "returns.amin(dim=1)", "one score for each plan"),
    "rewards after the end": (
        WORST,
        "sequence_returns(imagined.rewards, imagined.terminated)",
        "imagined.rewards.sum(dim=-1)",
        "after the end count",
    ),
    "the worst step of any member": (
        WORST,
        ROBUST,
        "imagined.rewards.amin(dim=(0, 2)) * imagined.rewards.shape[2]",
        "worst_case_scores",
    ),
    "NaN is passed on": (WORST, ROBUST, "worst_case(returns, num_members)", "minus infinity"),
    "a broken member is left out": (
        WORST,
        ROBUST,
        "returns.nan_to_num(nan=torch.inf).amin(dim=0)",
        "never wins",
    ),
    "infinity hides behind the minimum": (
        WORST,
        ROBUST,
        "rank_invalid_last(worst_case(returns, num_members))",
        "never wins",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    assert lost(GAE, edited(GAE, DELTAS, DELTAS.replace("~terminated", GOES_ON)))[0] < 5
    assert lost(LOSS, edited(LOSS, "data.action, model.elites", "data.action"))[0] == 2
    assert lost(ROLLOUTS, edited(ROLLOUTS, "valid & ~terminated & ~goes_on", "valid & ~goes_on"))[0] == 2
    assert lost(GATE, edited(GATE, "variance <= tau", "variance < tau"))[0] == 2
    assert lost(DYNA, edited(DYNA, "int(rollouts.valid.sum())", "0"))[0] == 2
    assert lost(WORST, edited(WORST, ROBUST, "worst_case(returns, num_members)"))[0] == 1


def test_nothing_written_earns_nothing():
    names = {
        GAE: ["generalized_advantages"],
        CLIP: ["clipped_objective"],
        LOSS: ["model_loss", "errors_by_age"],
        ROLLOUTS: ["imagined_rollouts", "cut_short"],
        GATE: ["epistemic_variance", "uncertainty_gate"],
        WORST: ["worst_case_scores"],
    }
    for exercise, points in exercise_points(WEEK).items():
        stubs = [
            f"def {n}(*args, **kwargs):\n    raise NotImplementedError\n" for n in names.get(exercise, ())
        ]
        if exercise == DYNA:
            stubs = ["class DynaPPO:\n    def __init__(self, *args):\n        raise NotImplementedError\n"]
        assert lost_points(WEEK, {exercise: "\n".join(stubs)}) == points


RIGHT = {
    "advantages as sums": (
        GAE,
        """
        def generalized_advantages(
            rewards, values, next_values, terminated, truncated, gamma=0.99, gae_lambda=0.95
        ):
            steps, envs = rewards.shape
            result = torch.zeros(steps, envs)
            for n in range(envs):
                for t in range(steps):
                    weight = 1.0
                    for k in range(t, steps):
                        follows = 0.0 if terminated[k, n] else float(next_values[k, n])
                        result[t, n] += weight * (rewards[k, n] + gamma * follows - values[k, n])
                        weight *= gamma * gae_lambda
                        if terminated[k, n] or truncated[k, n]:
                            break
            return result
        """,
    ),
    "advantages in numpy": (
        GAE,
        """
        def generalized_advantages(
            rewards, values, next_values, terminated, truncated, gamma=0.99, gae_lambda=0.95
        ):
            columns = rewards, values, next_values, terminated, truncated
            r, v, nv, term, trunc = (np.asarray(column) for column in columns)
            advantages = np.zeros(r.shape)
            last = np.zeros(r.shape[1])
            for t in reversed(range(len(r))):
                last = r[t] + gamma * np.where(term[t], 0, nv[t]) - v[t] + gamma * gae_lambda * np.where(
                    np.logical_or(term[t], trunc[t]), 0, last
                )
                advantages[t] = last
            return torch.from_numpy(advantages).float()
        """,
    ),
    "the objective by cases": (
        CLIP,
        """
        def clipped_objective(log_ratio, advantages, clip):
            ratio = torch.exp(log_ratio)
            limit = torch.where(advantages > 0, 1 + clip, 1 - clip)
            limited = torch.where(advantages > 0, torch.minimum(ratio, limit), torch.maximum(ratio, limit))
            return limited * advantages
        """,
    ),
    "the objective row by row": (
        CLIP,
        """
        def clipped_objective(log_ratio, advantages, clip):
            values = []
            for log, advantage in zip(log_ratio, advantages):
                ratio = torch.exp(log)
                values.append(min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage))
            return torch.stack([torch.as_tensor(value) for value in values])
        """,
    ),
    "the loss in loops": (
        LOSS,
        """
        def model_loss(means, next_obs, scale):
            total = torch.zeros(len(next_obs))
            for d in range(next_obs.shape[1]):
                center = sum(means[e, :, d] for e in range(len(means))) / len(means)
                total += ((center - next_obs[:, d]) / scale[d]) ** 2
            return total / next_obs.shape[1]

        def errors_by_age(model, data, num_groups):
            predicted = model.predict(data.obs, data.action, model.elites).obs
            loss = model_loss(predicted, data.next_obs, model.target_normalizer.std[: model.obs_dim])
            size, rest = divmod(len(loss), num_groups)
            sizes = [size + (g < rest) for g in range(num_groups)]
            return torch.tensor([float(part.mean()) for part in loss.split(sizes)])
        """,
    ),
    "the loss in numpy": (
        LOSS,
        """
        def model_loss(means, next_obs, scale):
            error = (means.numpy().mean(0) - next_obs.numpy()) / scale.numpy()
            return torch.from_numpy(np.mean(error**2, axis=1))

        def errors_by_age(model, data, num_groups):
            scale = model.target_normalizer.std[: data.obs.shape[1]]
            answers = [
                model_loss(model.predict(o[None], a[None], model.elites).obs, n[None], scale)[0]
                for o, a, n in zip(data.obs, data.action, data.next_obs)
            ]
            return torch.stack([torch.mean(g) for g in torch.tensor_split(torch.stack(answers), num_groups)])
        """,
    ),
    "rollouts with indices of the living": (
        ROLLOUTS,
        """
        def imagined_rollouts(act, step, obs, horizon):
            alive = torch.arange(len(obs))
            rows = []
            for _ in range(horizon):
                action, log_prob = act(obs)
                predicted, reward, terminated, trusted = step(obs, action)
                ok = trusted & torch.isfinite(predicted).all(-1) & torch.isfinite(reward)
                good = alive[ok[alive]]
                valid = torch.zeros(len(obs), dtype=torch.bool)
                valid[good] = True
                next_obs, rewards = obs.clone(), torch.zeros(len(obs))
                next_obs[good], rewards[good] = predicted[good], reward[good].float()
                ended = valid & terminated
                rows.append(ImaginedRollouts(obs, action, log_prob, rewards, next_obs, ended, valid))
                alive = good[~terminated[good]]
                obs = next_obs
            return ImaginedRollouts(*[torch.stack(column) for column in zip(*rows)])

        def cut_short(terminated, valid):
            result = torch.zeros_like(valid)
            for n in range(valid.shape[1]):
                steps = valid[:, n].nonzero().flatten().tolist()
                if steps and not terminated[steps[-1], n]:
                    result[steps[-1], n] = True
            return result
        """,
    ),
    "rollouts cleaned up afterwards": (
        ROLLOUTS,
        """
        def imagined_rollouts(act, step, obs, horizon):
            over = torch.zeros(len(obs), dtype=torch.bool)
            columns = [[] for _ in range(7)]
            for h in range(horizon):
                action, log_prob = act(obs)
                next_obs, reward, terminated, trusted = step(obs, action)
                bad = over | ~trusted | ~(next_obs.sum(-1) + reward).isfinite()
                next_obs = next_obs.clone()
                next_obs[bad] = obs[bad]
                reward = reward.masked_fill(bad, 0.0)
                terminated = terminated.logical_and(~bad)
                values = obs, action, log_prob, reward, next_obs, terminated, ~bad
                for column, value in zip(columns, values):
                    column.append(value)
                over, obs = bad | terminated, next_obs
            return ImaginedRollouts(*map(torch.stack, columns))

        def cut_short(terminated, valid):
            lengths = valid.sum(dim=0)
            last = (torch.arange(len(valid))[:, None] == lengths - 1) & valid
            return last & ~terminated
        """,
    ),
    "the gate in loops": (
        GATE,
        """
        def epistemic_variance(means, scale):
            center = sum(means) / len(means)
            squares = sum(((member - center) / scale) ** 2 for member in means)
            return squares.sum(-1) / (len(means) * means.shape[-1])

        def uncertainty_gate(variance, tau):
            return torch.tensor([v == v and not v > tau for v in variance.tolist()])
        """,
    ),
    "the gate in numpy": (
        GATE,
        """
        def epistemic_variance(means, scale):
            return torch.from_numpy((means.numpy() / scale.numpy()).var(axis=0).mean(axis=-1))

        def uncertainty_gate(variance, tau):
            return torch.le(torch.nan_to_num(variance, nan=0.0), tau) & ~variance.isnan()
        """,
    ),
    "worst case in loops": (
        WORST,
        """
        def worst_case_scores(step, num_members, obs, action_sequences):
            num_plans, horizon, _ = action_sequences.shape
            state = obs.repeat(num_members, num_plans, 1)
            totals = torch.zeros(num_members, num_plans)
            running = torch.ones(num_members, num_plans, dtype=torch.bool)
            for t in range(horizon):
                state, reward, ended = step(state, action_sequences[None, :, t].repeat(num_members, 1, 1))
                totals = torch.where(running, totals + reward, totals)
                running = running & ~ended
            totals[~totals.isfinite()] = -math.inf
            return totals.min(dim=0).values
        """,
    ),
    "worst case without week 5": (
        WORST,
        """
        def worst_case_scores(step, num_members, obs, action_sequences):
            imagined = rollout(step, obs, action_sequences, num_members)
            returns = sequence_returns(imagined.rewards, imagined.terminated)
            fine = returns.isfinite().all(dim=0)
            return torch.where(fine, returns.amin(dim=0), torch.full((len(fine),), -math.inf))
        """,
    ),
}
METHODS = {
    "imagine by names": (
        """        obs, action, log_prob, reward, next_obs, terminated, valid = rollouts
        truncated = cut_short(terminated, valid)
        return self.ppo.make_batch(obs, action, log_prob, reward, next_obs, terminated, truncated, valid)
""",
        """        r = rollouts
        cut = cut_short(r.terminated, r.valid)
        first = r.obs, r.action, r.log_prob, r.reward, r.next_obs
        return self.ppo.make_batch(*first, r.terminated, truncated=cut, valid=r.valid)
""",
    ),
    "a while loop and keywords": (
        f"        for _ in range(self.config.imag_batches):\n            {UPDATES}",
        """        done = 0
        while done < self.config.imag_batches:
            imagined = self.imagine()
            self.ppo.update(imagined, num_epochs=self.config.imag_epochs)
            done += 1
""",
    ),
}


@pytest.mark.parametrize("solution", RIGHT)
def test_another_right_solution_keeps_all_points(solution):
    exercise, source = RIGHT[solution]
    assert lost(exercise, source) == (0, "")


@pytest.mark.parametrize("change", METHODS)
def test_other_right_methods_keep_all_points(change):
    assert lost(DYNA, edited(DYNA, *METHODS[change])) == (0, "")


def test_other_solutions_work_together():
    chosen = {exercise: dedent(source) for exercise, source in RIGHT.values()}
    assert set(run(WEEK, chosen).values()) == {None}
