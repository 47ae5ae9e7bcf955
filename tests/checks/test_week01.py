"""Week 1's checks: typical mistakes lose points and are named, other correct solutions keep all points."""

from __future__ import annotations

import pytest

from harness import exercise_points, lost_points, replace_in_solution, run, solution

WEEK = "week01"

# What replaces what in the reference's solution, and what a message says (None: it only has to lose points).
Mistake = tuple[str, str, str, str | None]
ROWS = "rows = (start + torch.arange(len(kept.obs))) % self.capacity"
STORE = "            column[rows] = values\n"
MOVE = "self.position = (self.position + count) % self.capacity"
SIZE = "self.size = min(self.size + count, self.capacity)"
DRAW = "rows = torch.randint(self.size, (batch_size,), generator=generator)"
MISTAKES: dict[str, Mistake] = {
    "size-not-updated": ("ring-buffer", SIZE, "pass", "size was not updated"),
    "size-not-limited": ("ring-buffer", SIZE, "self.size += count", "can't be larger than the capacity"),
    "size-counts-batches": ("ring-buffer", SIZE, "self.size = min(self.size + 1, self.capacity)", "batches"),
    "position-not-moved": ("ring-buffer", MOVE, "pass", "position was not moved on"),
    "position-moves-by-one": ("ring-buffer", MOVE, "self.position += 1", "by one for each batch"),
    "written-to-a-copy": (
        "ring-buffer",
        STORE,
        "            column[rows].copy_(values)\n",
        "make copies",
    ),
    "position-leaves-the-ring": ("ring-buffer", MOVE, "self.position += count", "modulo the capacity"),
    "stops-at-the-end": (
        "ring-buffer",
        ROWS,
        "rows = (start + torch.arange(len(kept.obs))).clamp(max=self.capacity - 1)",
        "after it comes row 0",
    ),
    "always-from-row-0": (
        "ring-buffer",
        ROWS,
        "rows = torch.arange(len(kept.obs))",
        "start at self.position",
    ),
    "no-wrap": ("ring-buffer", ROWS, "rows = start + torch.arange(len(kept.obs))", None),
    "large-batch-from-position-on": (
        "ring-buffer",
        "start = self.position + max(0, count - self.capacity)",
        "start = self.position",
        "modulo capacity",
    ),
    "offset-for-small-batches": (
        "ring-buffer",
        "start = self.position + max(0, count - self.capacity)",
        "start = self.position + count - self.capacity",
        "added although N is smaller",
    ),
    "large-batch-keeps-the-first": (
        "ring-buffer",
        "kept = batch.take(slice(-self.capacity, None))",
        "kept = batch.take(slice(None, self.capacity))",
        None,
    ),
    "action-not-written": (
        "ring-buffer",
        STORE,
        "            if column is not self.data.action:\n                column[rows] = values\n",
        "are all six columns written",
    ),
    "truncated-not-written": (
        "ring-buffer",
        STORE,
        "            if column is not self.data.truncated:\n                column[rows] = values\n",
        "the column truncated",
    ),
    "samples-empty-rows": (
        "ring-buffer",
        DRAW,
        "rows = torch.randint(self.capacity, (batch_size,), generator=generator)",
        "never written",
    ),
    "samples-without-replacement": (
        "ring-buffer",
        DRAW,
        "rows = torch.randperm(self.size, generator=generator)[:batch_size]",
        "with replacement",
    ),
    "never-samples-the-newest-row": (
        "ring-buffer",
        DRAW,
        "rows = torch.randint(self.size - 1, (batch_size,), generator=generator)",
        "never drawn",
    ),
    "ignores-the-generator": (
        "ring-buffer",
        DRAW,
        "rows = torch.randint(self.size, (batch_size,))",
        "come from generator",
    ),
    "fixed-seed": (
        "ring-buffer",
        DRAW,
        "rows = torch.randint(self.size, (batch_size,), generator=torch.Generator().manual_seed(0))",
        "two samples from one generator",
    ),
    "rows-of-their-own-for-each-column": (
        "ring-buffer",
        "return self.data.take(rows)",
        "return Batch(*(c[rows[torch.randperm(len(rows), generator=generator)]] for c in self.data))",
        "come from the same rows",
    ),
    "empty-buffer-not-refused": (
        "ring-buffer",
        'raise ValueError("the buffer is empty: add transitions before you sample")',
        "return self.data.take(torch.zeros(batch_size, dtype=torch.long))",
        "expected a ValueError",
    ),
    "std-divides-by-n-minus-1": (
        "normalizer",
        "x.std(dim=0, correction=0)",
        "x.std(dim=0)",
        "torch.std needs correction=0",
    ),
    "variance": ("normalizer", "x.std(dim=0, correction=0)", "x.var(dim=0, correction=0)", "the variance"),
    "one-number-for-all-dimensions": ("normalizer", "x.mean(dim=0)", "x.mean()", "one number for all"),
    "statistics-over-dimensions": ("normalizer", "x.mean(dim=0)", "x.mean(dim=1)", "over the dimensions"),
    "std-of-constants-0": (
        "normalizer",
        "self.std = torch.where(varies, std, torch.ones_like(std))",
        "self.std = std",
        "a constant dimension gets std 1",
    ),
    "std-plus-epsilon": (
        "normalizer",
        "self.std = torch.where(varies, std, torch.ones_like(std))",
        "self.std = std + 1e-8",
        "a constant dimension gets std 1",
    ),
    "only-exact-zeros-are-constant": (
        "normalizer",
        "varies = std > 1e-6 * x.abs().amax(dim=0).clamp(min=1.0)",
        "varies = std > 0",
        "rounding is no variation",
    ),
    "small-changes-count-as-constant": (
        "normalizer",
        "varies = std > 1e-6 * x.abs().amax(dim=0).clamp(min=1.0)",
        "varies = std > 1e-4 * x.abs().amax(dim=0).clamp(min=1.0)",
        "small is not constant",
    ),
    "floor-for-std": (
        "normalizer",
        "self.std = torch.where(varies, std, torch.ones_like(std))",
        "self.std = std.clamp(min=1.0)",
        None,
    ),
    "normalizes-by-own-statistics": (
        "normalizer",
        "return (x - self.mean) / self.std",
        "return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)",
        "those stored by fit",
    ),
    "mean-not-subtracted": (
        "normalizer",
        "return (x - self.mean) / self.std",
        "return x / self.std",
        "the mean is not subtracted",
    ),
    "divides-by-variance": (
        "normalizer",
        "return (x - self.mean) / self.std",
        "return (x - self.mean) / self.std**2",
        "divides by the variance",
    ),
    "mean-not-added-back": (
        "normalizer",
        "return self.mean + self.std * z",
        "return self.std * z",
        "the mean is not added",
    ),
    "adds-then-multiplies": (
        "normalizer",
        "return self.mean + self.std * z",
        "return (self.mean + z) * self.std",
        "first multiply by std",
    ),
    "running-mean": (
        "normalizer",
        "self.mean = mean",
        "self.mean = mean if not self.mean.any() else (self.mean + mean) / 2",
        "fit starts anew",
    ),
    "change-instead-of-next-state": (
        "predict-next-obs",
        "return obs + denormalize_change(network(normalize_input(inputs)))",
        "return denormalize_change(network(normalize_input(inputs)))",
        "it is the change alone",
    ),
    "input-not-normalized": (
        "predict-next-obs",
        "network(normalize_input(inputs))",
        "network(inputs)",
        "the network's input is not normalised",
    ),
    "change-not-denormalized": (
        "predict-next-obs",
        "denormalize_change(network(normalize_input(inputs)))",
        "network(normalize_input(inputs))",
        "the change is not denormalised",
    ),
    "action-first": (
        "predict-next-obs",
        "torch.cat([obs, action], dim=-1)",
        "torch.cat([action, obs], dim=-1)",
        "expected the state",
    ),
    "state-denormalized-too": (
        "predict-next-obs",
        "obs + denormalize_change(network(normalize_input(inputs)))",
        "denormalize_change(obs + network(normalize_input(inputs)))",
        "obs is denormalised together",
    ),
    "batch-axis-assumed": (
        "predict-next-obs",
        "torch.cat([obs, action], dim=-1)",
        "torch.cat([obs, action], dim=1)",
        None,
    ),
    "no-zero-grad": ("training-step", "optimizer.zero_grad()", "pass", "optimizer.zero_grad()"),
    "zero-grad-before-the-step": (
        "training-step",
        "member_loss.sum().backward()\n    optimizer.step()",
        "member_loss.sum().backward()\n    optimizer.zero_grad()\n    optimizer.step()",
        "have not changed",
    ),
    "zero-grad-after-backward": (
        "training-step",
        "optimizer.step()",
        "optimizer.zero_grad()\n    optimizer.step()",
        "zero_grad() before backward()",
    ),
    "one-loss-for-each-member-returned": (
        "training-step",
        "return member_loss.mean().item()",
        "return member_loss.detach()",
        "the loss of each member",
    ),
    "step-forgotten": ("training-step", "optimizer.step()", "pass", "optimizer.step() both called"),
    "averaged-over-members": (
        "training-step",
        "member_loss.sum().backward()",
        "member_loss.mean().backward()",
        "sum over the members",
    ),
    "only-first-member": (
        "training-step",
        "member_loss.sum().backward()",
        "member_loss[0].backward()",
        "only the first member learns",
    ),
    "summed-over-dimensions": (
        "training-step",
        "squared_error.mean(dim=(1, 2))",
        "squared_error.sum(dim=2).mean(dim=1)",
        "summed over the 2 dimensions",
    ),
    "summed-over-everything": (
        "training-step",
        "squared_error.mean(dim=(1, 2))",
        "squared_error.sum(dim=(1, 2))",
        "squared error is summed",
    ),
    "two-steps": ("training-step", "optimizer.step()", "optimizer.step(), optimizer.step()", None),
    "loss-after-the-step": (
        "training-step",
        "return member_loss.mean().item()",
        "return (network(inputs) - targets).square().mean().item()",
        "after the step",
    ),
    "loss-summed-over-members": (
        "training-step",
        "return member_loss.mean().item()",
        "return member_loss.sum().item()",
        "the sum over the members",
    ),
    "nothing-returned": (
        "training-step",
        "return member_loss.mean().item()",
        "pass",
        "is a `return` missing",
    ),
    "teacher-forcing": (
        "k-step-errors",
        "predict(predicted, actions[:, k])",
        "predict(obs[:, k], actions[:, k])",
        "real state at each step",
    ),
    "compared-with-the-state-before": (
        "k-step-errors",
        "obs[:, k + 1]",
        "obs[:, k]",
        "the state before the step",
    ),
    "off-by-one": (
        "k-step-errors",
        "        predicted = predict(predicted, actions[:, k])\n"
        "        errors.append((predicted - obs[:, k + 1]).square().mean())",
        "        errors.append((predicted - obs[:, k]).square().mean())\n"
        "        predicted = predict(predicted, actions[:, k])",
        "the first is E_0",
    ),
    "with-E_0": ("k-step-errors", "errors = []", "errors = [torch.tensor(0.0)]", "E_0 does not count"),
    "last-step-missing": (
        "k-step-errors",
        "range(actions.shape[1])",
        "range(actions.shape[1] - 1)",
        "expected [4]",
    ),
    "compared-with-the-start": ("k-step-errors", "obs[:, k + 1]", "obs[:, 0]", None),
    "wrong-action": ("k-step-errors", "actions[:, k])", "actions[:, k - 1])", "its own state"),
    "root-mean-square": (
        "k-step-errors",
        ".square().mean()",
        ".square().mean().sqrt()",
        "it is the square root",
    ),
    "summed-over-state": (
        "k-step-errors",
        ".square().mean()",
        ".square().sum(dim=-1).mean()",
        "summed over the dimensions",
    ),
    "running-average": (
        "k-step-errors",
        "return torch.stack(errors)",
        "return torch.stack(errors).cumsum(0) / torch.arange(1, len(errors) + 1)",
        "the mean of E_1 .. E_k",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_loses_points_and_is_named(name: str) -> None:
    exercise, old, new, message = MISTAKES[name]
    wrong = replace_in_solution(WEEK, exercise, old, new)
    results = run(WEEK, {exercise: wrong}, exercises=[exercise])
    said = [text for text in results.values() if text is not None]
    assert said
    if message is not None:
        assert any(message in text for text in said), said


def test_every_exercise_has_mistakes() -> None:
    counts = {exercise: 0 for exercise in exercise_points(WEEK)}
    for exercise, *_ in MISTAKES.values():
        counts[exercise] += 1
    assert min(counts.values()) >= 3


BUFFER_LOOP = (
    """\
        for row in zip(*batch, strict=True):
            for column, value in zip(self.data, row, strict=True):
                column[self.position] = value
            self.position = (self.position + 1) % self.capacity
            self.size = min(self.size + 1, self.capacity)
""",
    """\
        if not len(self):
            raise ValueError("nothing is stored yet")
        uniform = torch.rand(batch_size, generator=generator)
        rows = [int(u * self.size) for u in uniform]
        return Batch(*(torch.stack([column[row] for row in rows]) for column in self.data))
""",
)
BUFFER_PIECES = (
    """\
        total = len(batch.reward)
        for first in range(0, total, self.capacity):  # the ring is gone round as often as it takes
            part = batch.take(slice(first, first + self.capacity))
            count = len(part.reward)
            head = min(count, self.capacity - self.position)
            for name in Batch._fields:
                column, values = getattr(self.data, name), getattr(part, name)
                column[self.position : self.position + head] = values[:head]
                column[: count - head] = values[head:]
            self.position = (self.position + count) % self.capacity
            self.size = max(self.size, min(self.size + count, self.capacity))
""",
    """\
        if self.size == 0:
            raise ValueError("empty")
        weights = torch.ones(self.size, dtype=torch.float64)
        return self.data.take(torch.multinomial(weights, batch_size, True, generator=generator))
""",
)
BUFFER_NUMPY = (
    """\
        import numpy as np

        n = len(batch.obs)
        rows = np.arange(self.position, self.position + n) % self.capacity
        last = {int(row): i for i, row in enumerate(rows)}  # a later transition replaces an earlier one
        for column, values in zip(self.data, batch):
            column.numpy()[list(last)] = values.numpy()[list(last.values())]
        self.position = int((self.position + n) % self.capacity)
        self.size = int(np.clip(self.size + n, 0, self.capacity))
""",
    """\
        import numpy as np

        if self.size < 1:
            raise ValueError("empty")
        seed = int(torch.randint(2**31, (1,), generator=generator))
        rows = np.random.default_rng(seed).choice(self.size, size=batch_size, replace=True)
        return Batch(*[column[rows] for column in self.data])
""",
)


@pytest.mark.parametrize(
    "bodies", [BUFFER_LOOP, BUFFER_PIECES, BUFFER_NUMPY], ids=["loops", "two-slices", "numpy"]
)
def test_another_ring_buffer_keeps_all_points(bodies: tuple[str, str]) -> None:
    cell = replace_bodies("ring-buffer", bodies)
    assert lost_points(WEEK, {"ring-buffer": cell}) == 0


def replace_bodies(exercise: str, bodies: tuple[str, ...]) -> str:
    """The reference's solution cell with other bodies between the markers, in their order."""
    begin, end = "### BEGIN SOLUTION\n", "### END SOLUTION"
    first, *parts = solution(WEEK, exercise).split(begin)
    assert len(parts) == len(bodies)
    rest = [part[part.index(end) :] for part in parts]
    return first + "".join(f"{begin}{body}        {after}" for body, after in zip(bodies, rest, strict=True))


NORMALIZER_VARIANCE = (
    """\
        self.mean = x.sum(dim=0) / x.shape[0]
        variance = ((x - self.mean) ** 2).sum(dim=0) / x.shape[0]
        std = variance ** 0.5
        threshold = 1e-6 * torch.maximum(x.abs().max(dim=0).values, torch.ones(x.shape[1]))
        std[std <= threshold] = 1.0
        self.std = std
""",
    "        return x.sub(self.mean).div(self.std)\n",
    "        return z.mul(self.std).add(self.mean)\n",
)
NORMALIZER_LOOP = (
    """\
        means, stds = [], []
        for column in x.double().T:  # float64 all the way
            mean = float(column.mean())
            std = float(((column - mean) ** 2).mean()) ** 0.5
            if std < 1e-6 * max(1.0, float(column.abs().max())):
                std = 1.0
            means.append(mean)
            stds.append(std)
        self.mean, self.std = torch.tensor(means), torch.tensor(stds)
""",
    """\
        result = torch.empty_like(x)
        for d in range(x.shape[-1]):
            result[..., d] = (x[..., d] - self.mean[d]) / self.std[d]
        return result
""",
    """\
        return torch.stack([z[..., d] * self.std[d] + self.mean[d] for d in range(z.shape[-1])], dim=-1)
""",
)
NORMALIZER_NUMPY = (
    """\
        import numpy as np

        array = x.numpy().astype(np.float64)
        std = np.std(array, axis=0)
        constant = std <= 1e-6 * np.maximum(1, np.abs(array).max(axis=0))
        self.register_buffer("mean", torch.from_numpy(array.mean(axis=0)))
        self.register_buffer("std", torch.from_numpy(np.where(constant, 1.0, std)))
""",
    "        return (x - self.mean) / self.std\n",
    "        return z * self.std + self.mean\n",
)


@pytest.mark.parametrize(
    "bodies",
    [NORMALIZER_VARIANCE, NORMALIZER_LOOP, NORMALIZER_NUMPY],
    ids=["variance", "loops", "numpy-float64"],
)
def test_another_normalizer_keeps_all_points(bodies: tuple[str, ...]) -> None:
    assert lost_points(WEEK, {"normalizer": replace_bodies("normalizer", bodies)}) == 0


OTHER_SOLUTIONS: dict[str, tuple[str, str]] = {
    "predict-filled-in": (
        "predict-next-obs",
        """\
def predict_next_obs(network, normalize_input, denormalize_change, obs, action):
    joined = torch.empty(*obs.shape[:-1], obs.shape[-1] + action.shape[-1])
    joined[..., : obs.shape[-1]] = obs
    joined[..., obs.shape[-1] :] = action
    change = denormalize_change(network(normalize_input(joined)))
    return change.add(obs)
""",
    ),
    "predict-flattened": (
        "predict-next-obs",
        """\
def predict_next_obs(network, normalize_input, denormalize_change, obs, action):
    flat_obs = obs.reshape(-1, obs.shape[-1])
    flat_action = action.reshape(-1, action.shape[-1])
    z = network(normalize_input(torch.hstack([flat_obs, flat_action])))
    return (flat_obs + denormalize_change(z)).reshape(obs.shape)
""",
    ),
    "predict-float64": (
        "predict-next-obs",
        """\
def predict_next_obs(network, normalize_input, denormalize_change, obs, action):
    z = network(normalize_input(torch.concatenate((obs, action), -1)))
    return (obs.double() + denormalize_change(z).double()).numpy()
""",
    ),
    "step-over-members": (
        "training-step",
        """\
def training_step(network, optimizer, inputs, targets):
    optimizer.zero_grad(set_to_none=False)
    outputs = network(inputs)
    losses = [nn.functional.mse_loss(outputs[e], targets[e]) for e in range(len(outputs))]
    sum(losses).backward()
    optimizer.step()
    return sum(loss.item() for loss in losses) / len(losses)
""",
    ),
    "step-zero-grad-last": (
        "training-step",
        """\
def training_step(network, optimizer, inputs, targets):
    size = inputs.shape[0]
    loss = torch.nn.functional.mse_loss(network(inputs), targets) * size
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach() / size)
""",
    ),
    "step-returns-tensor": (
        "training-step",
        """\
def training_step(network, optimizer, inputs, targets):
    def closure():
        optimizer.zero_grad()
        total = ((network(inputs) - targets) ** 2).sum() / targets[0].numel()
        total.backward()
        return total

    return optimizer.step(closure) / len(inputs)
""",
    ),
    "errors-all-at-once": (
        "k-step-errors",
        """\
def k_step_errors(predict, obs, actions):
    states = [obs[:, 0]]
    for action in actions.unbind(dim=1):
        states.append(predict(states[-1], action))
    return ((torch.stack(states, dim=1) - obs) ** 2)[:, 1:].mean(dim=(0, 2))
""",
    ),
    "errors-filled-in": (
        "k-step-errors",
        """\
def k_step_errors(predict, obs, actions):
    num_trajectories, num_steps = actions.shape[0], actions.shape[1]
    errors = torch.zeros(num_steps, dtype=torch.float64)
    state = obs[:, 0].clone()
    for k in range(num_steps):
        state = predict(state, actions[:, k])
        for b in range(num_trajectories):
            errors[k] += ((state[b] - obs[b, k + 1]) ** 2).mean().item() / num_trajectories
    return errors.numpy()
""",
    ),
    "errors-recursive": (
        "k-step-errors",
        """\
def k_step_errors(predict, obs, actions):
    def after(state, k):
        if k == actions.shape[1]:
            return []
        state = predict(state, actions[:, k])
        return [torch.nn.functional.mse_loss(state, obs[:, k + 1])] + after(state, k + 1)

    return torch.tensor(after(obs[:, 0], 0))
""",
    ),
}


@pytest.mark.parametrize("name", OTHER_SOLUTIONS)
def test_another_solution_keeps_all_points(name: str) -> None:
    exercise, source = OTHER_SOLUTIONS[name]
    assert lost_points(WEEK, {exercise: source}) == 0


def test_the_reference_keeps_all_points() -> None:
    assert set(run(WEEK).values()) == {None}
    assert sum(exercise_points(WEEK).values()) == 30
