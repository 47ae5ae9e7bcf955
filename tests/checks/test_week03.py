"""Week 3: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week03"
REFIT = "refit-to-elites"
ITERATION = "cem-iteration"
PLAN = "cem-plan"
SHIFT = "shift-plan"
WEIGHTS = "mppi-weights"
NOISE = "colored-noise"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    assert exercise_points(WEEK) == {REFIT: 6, ITERATION: 7, PLAN: 4, SHIFT: 3, WEIGHTS: 5, NOISE: 5}


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 3.1
    "elites from the wrong end": (
        REFIT,
        "topk(num_elites)",
        "topk(num_elites, largest=False)",
        "lowest scores",
    ),
    "std divides by K - 1": (REFIT, "correction=0", "correction=1", "K - 1"),
    "mean over the time steps": (REFIT, "elites.mean(dim=0)", "elites.mean(dim=1)", "over the elites"),
    "mean over all axes": (REFIT, "elites.mean(dim=0)", "elites.mean()", "its own mean"),
    "mean over elites and time": (REFIT, "elites.mean(dim=0)", "elites.mean(dim=(0, 1))", "Each step"),
    "NaN is picked as an elite": (REFIT, "rank_invalid_last(scores)", "scores", "NaN is among the elites"),
    "NaN ranks last but infinity first": (
        REFIT,
        "rank_invalid_last(scores)",
        "torch.where(scores.isnan(), -torch.inf, scores)",
        "infinite",
    ),
    "variance for standard deviation": (REFIT, "elites.std(", "elites.var(", "variance"),
    "spread of all sequences": (REFIT, "elites.std(", "sequences.std(", "spread of all sequences"),
    "std and mean swapped": (
        REFIT,
        "return elites.mean(dim=0), elites.std(dim=0, correction=0)",
        "return elites.std(dim=0, correction=0), elites.mean(dim=0)",
        "mean",
    ),
    "the best one is missing": (
        REFIT,
        ".topk(num_elites).indices",
        ".topk(num_elites + 1).indices[1:]",
        "mean",
    ),
    "NaN counts as zero": (REFIT, "rank_invalid_last(scores)", "scores.nan_to_num(0.0)", "mean"),
    # 3.2
    "samples leave the bounds": (
        ITERATION,
        "sample_sequences(mean, std, low, high, population_size, generator)",
        "mean + std * torch.randn(population_size, *mean.shape, generator=generator)",
        "clip before scoring",
    ),
    "elites are not those that were scored": (
        ITERATION,
        "elite_mean, elite_std = refit_to_elites(sequences, score_fn(sequences), num_elites)",
        "elite_mean, elite_std = refit_to_elites(2 * sequences, score_fn(sequences), num_elites)",
        "5 scored sequences that are best",
    ),
    "bounds of the first action for all": (
        ITERATION,
        "sample_sequences(mean, std, low, high,",
        "sample_sequences(mean, std, low[0], high[0],",
        "second action",
    ),
    "smoothing the wrong way round": (
        ITERATION,
        "smoothing * mean + (1 - smoothing) * elite_mean",
        "(1 - smoothing) * mean + smoothing * elite_mean",
        "wrong way round",
    ),
    "smoothing of the std the wrong way round": (
        ITERATION,
        "smoothing * std + (1 - smoothing) * elite_std",
        "(1 - smoothing) * std + smoothing * elite_std",
        "wrong way round",
    ),
    "no smoothing": (
        ITERATION,
        "smoothing * mean + (1 - smoothing) * elite_mean",
        "elite_mean",
        "smoothing was left out",
    ),
    "std is not smoothed": (
        ITERATION,
        "smoothing * std + (1 - smoothing) * elite_std",
        "elite_std",
        "smoothing was left out",
    ),
    "std without a floor": (
        ITERATION,
        "torch.maximum(new_std, torch.as_tensor(min_std))",
        "new_std",
        "floor",
    ),
    "floor is a ceiling": (ITERATION, "torch.maximum", "torch.minimum", "min_std"),
    "floor before smoothing": (
        ITERATION,
        "new_std = smoothing * std + (1 - smoothing) * elite_std",
        "new_std = smoothing * std + (1 - smoothing) * torch.maximum(elite_std, torch.as_tensor(min_std))",
        "before the smoothing",
    ),
    "floor is a number only": (
        ITERATION,
        "torch.maximum(new_std, torch.as_tensor(min_std))",
        "new_std.clamp(min=float(min_std))",
        "Error",
    ),
    "floor is added": (
        ITERATION,
        "torch.maximum(new_std, torch.as_tensor(min_std))",
        "new_std + torch.as_tensor(min_std)",
        "added",
    ),
    "global randomness": (
        ITERATION,
        "population_size, generator)",
        "population_size)",
        "come from generator",
    ),
    "std taken for a variance": (ITERATION, "(mean, std, low", "(mean, std.sqrt(), low", "variance"),
    "uniform samples": (
        ITERATION,
        "sample_sequences(mean, std, low, high, population_size, generator)",
        "(mean + std * (torch.rand(population_size, *mean.shape, generator=generator) - 0.5) * 12**0.5)"
        ".clamp(low, high)",
        "is it a Gaussian?",
    ),
    "the same noise at each step": (
        ITERATION,
        "sample_sequences(mean, std, low, high, population_size, generator)",
        "(mean + std * torch.randn(population_size, 1, mean.shape[1], generator=generator)).clamp(low, high)",
        "noise of its own",
    ),
    "scored one by one": (
        ITERATION,
        "score_fn(sequences)",
        "torch.cat([score_fn(s[None]) for s in sequences])",
        "one call with the whole population",
    ),
    # 3.3
    "std not relative to the range": (
        PLAN,
        "(config.initial_std * half_range).expand_as(initial_mean)",
        "torch.full_like(initial_mean, config.initial_std)",
        "half the range",
    ),
    "std relative to the whole range": (
        PLAN,
        "half_range = (high - low) / 2",
        "half_range = high - low",
        "half",
    ),
    "min_std not relative": (
        PLAN,
        "min_std = config.min_std * half_range",
        "min_std = config.min_std",
        "min_std is relative",
    ),
    "min_std is forgotten": (
        PLAN,
        "min_std = config.min_std * half_range",
        "min_std = 0.0",
        "min_std",
    ),
    "one iteration too few": (PLAN, "range(config.num_iterations)", "range(config.num_iterations - 1)", "3"),
    "each iteration starts afresh": (
        PLAN,
        "cem_iteration(\n            score_fn,\n            mean,",
        "cem_iteration(\n            score_fn,\n            initial_mean,",
        "last Gaussian",
    ),
    "smoothing is not passed on": (PLAN, "smoothing=config.smoothing,", "", "config.smoothing has no effect"),
    "starts at zero": (
        PLAN,
        "mean, std = initial_mean,",
        "mean, std = torch.zeros_like(initial_mean),",
        "initial_mean",
    ),
    "generator is not passed on": (PLAN, "generator=generator,", "", "same seed"),
    "elites are not passed on": (
        PLAN,
        "num_elites=config.num_elites",
        "num_elites=config.population_size // 2",
        "the plan",
    ),
    # 3.4
    "zero for repeat": (SHIFT, 'fill == "repeat"', 'fill == "zero"', "last action is"),
    "plan is rolled": (
        SHIFT,
        "torch.cat([plan[1:], last])",
        "torch.roll(plan, -1, dims=0)",
        "first action came back",
    ),
    "wrong direction": (
        SHIFT,
        "torch.cat([plan[1:], last])",
        "torch.cat([plan[:1], plan[:-1]])",
        "wrong way",
    ),
    "one action too few": (SHIFT, "torch.cat([plan[1:], last])", "plan[1:]", "last action is missing"),
    "not shifted": (SHIFT, "torch.cat([plan[1:], last])", "plan", "as it was"),
    "unknown fill is accepted": (SHIFT, 'raise ValueError(f"fill is', 'print(f"fill is', "ValueError"),
    "last but one is repeated": (SHIFT, "plan[-1:] if fill", "plan[-2:-1] if fill", "shift_plan"),
    # 3.5
    "exp overflows": (WEIGHTS, "scores - best", "scores", "overflows"),
    "costs for scores": (
        WEIGHTS,
        "(scores - best) / temperature",
        "(best - scores) / temperature",
        "low scores",
    ),
    "multiplied by the temperature": (WEIGHTS, "best) / temperature", "best) * temperature", "multiplied"),
    "temperature is forgotten": (WEIGHTS, "(scores - best) / temperature", "scores - best", "no effect"),
    "not normalised": (WEIGHTS, "return weights / weights.sum()", "return weights", "sum"),
    "NaN poisons the weights": (WEIGHTS, "scores = rank_invalid_last(scores)", "scores = scores", "invalid"),
    "infinity wins": (
        WEIGHTS,
        "scores = rank_invalid_last(scores)",
        "scores = torch.where(scores.isnan(), -torch.inf, scores)",
        "weights of [nan",
    ),
    "nothing finite gives NaN": (WEIGHTS, "if not torch.isfinite(best):", "if False:", "no score is finite"),
    "nothing finite gives zeros": (WEIGHTS, "1 / len(scores)", "0.0", "all weigh the same"),
    "centred on the mean": (WEIGHTS, "best = scores.max()", "best = scores.mean()", "weights"),
    # 3.6
    "exponent on the amplitude": (NOISE, "frequency ** (-beta / 2)", "frequency ** (-beta)", "-2 beta"),
    "quarter of the exponent": (NOISE, "frequency ** (-beta / 2)", "frequency ** (-beta / 4)", "mixed up"),
    "wrong sign": (NOISE, "frequency ** (-beta / 2)", "frequency ** (beta / 2)", "smooth"),
    "no normalisation": (NOISE, "return signal / power.sqrt()", "return signal", "variance"),
    "f = 0 is left out": (
        NOISE,
        "amplitude = frequency ** (-beta / 2)",
        "amplitude = frequency ** (-beta / 2)\n    amplitude[0] = 0",
        "power at f = 0",
    ),
    "each draw divided by its own std": (
        NOISE,
        "return signal / power.sqrt()",
        "return signal / signal.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-9)",
        "its own standard deviation",
    ),
    "f = 0 keeps its infinite power": (NOISE, ".clamp(min=1 / length)", "", "gets the power of f_1"),
    "edges like all others": (
        NOISE,
        "    real[..., edges] *= 2**0.5\n    imaginary[..., edges] = 0\n",
        "",
        "the edges get sqrt(2) times the real part",
    ),
    "divided by the length": (NOISE, ', norm="forward"', "", 'irfft needs norm="forward"'),
    "odd lengths come back even": (NOISE, ", n=length", "", "shape"),
    "edges count twice": (
        NOISE,
        "4 * amplitude.square().sum() - 2 * amplitude[edges].square().sum()",
        "4 * amplitude.square().sum()",
        "variance",
    ),
    "global randomness in the noise": (
        NOISE,
        "imaginary = torch.randn(*shape[:-1], len(frequency), generator=generator)",
        "imaginary = torch.randn(*shape[:-1], len(frequency))",
        "come from generator",
    ),
    "one draw for all rows": (
        NOISE,
        "return signal / power.sqrt()",
        "rows = slice(0, 1) if len(shape) == 3 else slice(None)\n"
        "    return (signal[..., rows, :] if len(shape) > 1 else signal).expand(shape) / power.sqrt()",
        "independent",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    points, _ = lost(REFIT, edited(REFIT, "rank_invalid_last(scores)", "scores"))
    assert points == 2
    points, _ = lost(
        ITERATION, edited(ITERATION, "torch.maximum(new_std, torch.as_tensor(min_std))", "new_std")
    )
    assert points == 2
    points, _ = lost(WEIGHTS, edited(WEIGHTS, "if not torch.isfinite(best):", "if False:"))
    assert points == 1


def test_nothing_written_earns_nothing():
    for exercise, points in exercise_points(WEEK).items():
        name = exercise.replace("-", "_")
        stub = f"def {name}(*args, **kwargs):\n    raise NotImplementedError\n"
        assert lost_points(WEEK, {exercise: stub}) == points


RIGHT = {
    "refit by sorting in Python": (
        REFIT,
        """
        def refit_to_elites(sequences, scores, num_elites):
            values = [s if abs(s) < float("inf") else -float("inf") for s in scores.tolist()]
            order = sorted(range(len(values)), key=values.__getitem__)
            chosen = [sequences[i] for i in order[-num_elites:]]
            mean = sum(chosen) / num_elites
            return mean, (sum((x - mean) ** 2 for x in chosen) / num_elites) ** 0.5
        """,
    ),
    "refit in numpy": (
        REFIT,
        """
        import numpy as np

        def refit_to_elites(sequences, scores, num_elites):
            scores = np.asarray(scores, dtype=np.float64).copy()
            scores[~np.isfinite(scores)] = -np.inf
            elites = np.asarray(sequences)[np.argsort(-scores, kind="stable")[:num_elites]]
            return elites.mean(axis=0), elites.std(axis=0)
        """,
    ),
    "refit with a threshold": (
        REFIT,
        """
        def refit_to_elites(sequences, scores, num_elites):
            clean = scores.nan_to_num(nan=-1e38, posinf=-1e38, neginf=-1e38)
            cut = clean.sort(descending=True).values[num_elites - 1]
            variance, mean = torch.var_mean(sequences[clean >= cut], dim=0, correction=0)
            return mean, variance.sqrt()
        """,
    ),
    "iteration sample by sample": (
        ITERATION,
        """
        def cem_iteration(score_fn, mean, std, low, high, *, population_size, num_elites, smoothing=0.0,
                          min_std=0.0, generator=None):
            rows = []
            for _ in range(population_size):
                row = torch.normal(mean, std, generator=generator)
                rows.append(torch.max(torch.min(row, high), low))
            rows = torch.stack(rows)
            center, spread = refit_to_elites(rows, score_fn(rows), num_elites)
            center = center + smoothing * (mean - center)
            spread = spread + smoothing * (std - spread)
            if not isinstance(min_std, torch.Tensor):
                min_std = torch.tensor(float(min_std))
            return center, torch.where(spread < min_std, min_std.expand_as(spread), spread)
        """,
    ),
    "iteration in numpy, time step by time step": (
        ITERATION,
        """
        import numpy as np

        def cem_iteration(score_fn, mean, std, low, high, *, population_size, num_elites, smoothing=0.0,
                          min_std=0.0, generator=None):
            seed = int(torch.randint(2**31, (1,), generator=generator))
            rng = np.random.default_rng(seed)
            plans = np.stack(
                [rng.normal(m, s, (population_size, len(m))) for m, s in zip(mean, std, strict=True)], axis=1
            )
            plans = np.clip(plans, low.numpy(), high.numpy()).astype(np.float32)
            scores = np.nan_to_num(np.asarray(score_fn(torch.from_numpy(plans))), nan=-np.inf)
            elites = plans[np.argsort(scores)[::-1][:num_elites]]
            new_mean = smoothing * mean.numpy() + (1 - smoothing) * elites.mean(0)
            new_std = smoothing * std.numpy() + (1 - smoothing) * elites.std(0)
            return torch.from_numpy(new_mean), torch.from_numpy(np.maximum(new_std, np.asarray(min_std)))
        """,
    ),
    "plan by recursion": (
        PLAN,
        """
        def cem_plan(score_fn, initial_mean, low, high, config, generator=None):
            half = 0.5 * (high - low)

            def search(mean, std, left):
                if left == 0:
                    return mean
                new = cem_iteration(
                    score_fn, mean, std, low, high, population_size=config.population_size,
                    num_elites=config.num_elites, smoothing=config.smoothing, min_std=config.min_std * half,
                    generator=generator,
                )
                return search(*new, left - 1)

            return search(initial_mean, torch.ones_like(initial_mean) * half * config.initial_std,
                          config.num_iterations)
        """,
    ),
    "plan in the unit cube": (
        PLAN,
        """
        def cem_plan(score_fn, initial_mean, low, high, config, generator=None):
            center, scale = (high + low) / 2, (high - low) / 2
            mean = (initial_mean - center) / scale
            std = torch.full_like(mean, config.initial_std)
            ones = torch.ones_like(low)
            for _ in range(config.num_iterations):
                mean, std = cem_iteration(
                    lambda z: score_fn(center + scale * z), mean, std, -ones, ones,
                    population_size=config.population_size, num_elites=config.num_elites,
                    smoothing=config.smoothing, min_std=config.min_std, generator=generator,
                )
            return center + scale * mean
        """,
    ),
    "shift in place of a copy": (
        SHIFT,
        """
        def shift_plan(plan, fill="repeat"):
            if fill not in {"repeat", "zero"}:
                raise ValueError(fill)
            shifted = plan.roll(-1, dims=0)
            shifted[-1] = plan[-1] if fill == "repeat" else 0.0
            return shifted
        """,
    ),
    "shift by indices": (
        SHIFT,
        """
        def shift_plan(plan, fill="repeat"):
            keep = {"repeat": 1.0, "zero": 0.0}
            if fill not in keep:
                raise ValueError(f"unknown fill: {fill}")
            index = torch.arange(1, len(plan) + 1).clamp(max=len(plan) - 1)
            weight = torch.ones(len(plan), 1)
            weight[-1] = keep[fill]
            return plan[index] * weight
        """,
    ),
    "weights by softmax": (
        WEIGHTS,
        """
        def mppi_weights(scores, temperature):
            valid = torch.isfinite(scores)
            if not valid.any():
                return torch.ones(len(scores)) / len(scores)
            return torch.softmax(torch.where(valid, scores, -torch.inf) / temperature, dim=0)
        """,
    ),
    "weights in Python": (
        WEIGHTS,
        """
        import math

        def mppi_weights(scores, temperature):
            finite = [s for s in scores.tolist() if math.isfinite(s)]
            if not finite:
                return [1 / len(scores)] * len(scores)
            best = max(finite)
            powers = [math.exp((s - best) / temperature) if s in finite else 0.0 for s in scores.tolist()]
            return torch.tensor([p / sum(powers) for p in powers])
        """,
    ),
    "weights by logsumexp in double": (
        WEIGHTS,
        """
        def mppi_weights(scores, temperature):
            logits = (rank_invalid_last(scores).double() / temperature)
            if torch.isneginf(logits).all():
                return torch.full((len(scores),), 1.0 / len(scores))
            return (logits - logits.logsumexp(0)).exp()
        """,
    ),
    "noise by filtering white noise": (
        NOISE,
        """
        def colored_noise(beta, shape, generator=None):
            length = shape[-1]
            spectrum = torch.fft.rfft(torch.randn(*shape, generator=generator), norm="ortho")
            amplitude = torch.clamp(torch.fft.rfftfreq(length), min=1.0 / length) ** (-beta / 2)
            counts = torch.full((len(amplitude),), 2.0)
            counts[0] = 1.0
            if length % 2 == 0:
                counts[-1] = 1.0
            variance = (counts * amplitude**2).sum() / length
            return torch.fft.irfft(spectrum * amplitude, n=length, norm="ortho") / variance.sqrt()
        """,
    ),
    "noise by the square root of its covariance": (
        NOISE,
        """
        import math

        def colored_noise(beta, shape, generator=None):
            length = shape[-1]
            f = torch.fft.fftfreq(length, dtype=torch.float64)
            power = f.abs().clamp(min=1 / length) ** -beta
            lags = torch.arange(length)[:, None] - torch.arange(length)
            covariance = (power / power.sum() * torch.cos(2 * math.pi * f * lags[..., None])).sum(-1)
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp(min=0).sqrt()
            return torch.randn(*shape, generator=generator) @ root.T.float()
        """,
    ),
}


@pytest.mark.parametrize("solution", RIGHT)
def test_another_right_solution_keeps_all_points(solution):
    exercise, source = RIGHT[solution]
    assert lost(exercise, source) == (0, "")


def test_other_solutions_work_together():
    chosen = {exercise: dedent(source) for exercise, source in RIGHT.values()}
    assert set(run(WEEK, chosen).values()) == {None}
