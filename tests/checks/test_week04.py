"""Week 4: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week04"
NLL = "gaussian-nll"
BOUNDS = "bound-log-var"
LAYER = "ensemble-layer"
MEMBERS = "members"
SPLIT = "split-variance"
CALIBRATION = "calibration"
REPLAY = "prioritized-replay"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    assert exercise_points(WEEK) == {
        NLL: 4,
        BOUNDS: 4,
        LAYER: 4,
        MEMBERS: 8,
        SPLIT: 4,
        CALIBRATION: 6,
        REPLAY: 6,  # bonus
    }


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


NLL_BODY = "0.5 * (squared_error * torch.exp(-log_var) + log_var + math.log(2 * math.pi))"
UPPER = "log_var = max_log_var - softplus(max_log_var - log_var)"
LOWER = "return min_log_var + softplus(log_var - min_log_var)"
PRODUCT = "torch.baddbmm(bias, x.expand(len(weight), -1, -1), weight)"
ROWS = "torch.randint(num_rows, (ensemble_size, num_rows), generator=generator)"
LOSS = "nll.mean(dim=(1, 2)).sum() + bound_penalty * (max_log_var - min_log_var).sum()"
ELITES = "losses.argsort(stable=True)[:num_elites]"
INSIDE = "(error.unsqueeze(0) <= z.unsqueeze(1)).double().mean(dim=1)"
RANKS = "(last - (count - 1) / 2)[group]"
PARENT = "self.nodes[nodes] = self.nodes[2 * nodes] + self.nodes[2 * nodes + 1]"
WEIGHTS = "(weights / weights.max()).float()"

# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 4.1
    "no half": (NLL, "0.5 * (squared", "1.0 * (squared", "factor 1/2 is missing"),
    "half of the error only": (NLL, "0.5 * (squared_error", "(0.5 * squared_error", "all three terms"),
    "no constant": (NLL, " + math.log(2 * math.pi)", "", "constant log(2 pi) is missing"),
    "likelihood": (NLL, "return 0.5", "return -0.5", "expected its negative"),
    "multiplied by the variance": (
        NLL,
        "torch.exp(-log_var)",
        "torch.exp(log_var)",
        "multiplied by the variance",
    ),
    "logarithm of the std": (
        NLL,
        NLL_BODY,
        "0.5 * squared_error * torch.exp(-2 * log_var) + log_var + 0.5 * math.log(2 * math.pi)",
        "logarithm of the standard deviation",
    ),
    "log_var is the variance": (
        NLL,
        NLL_BODY,
        "0.5 * (squared_error / log_var + log_var.log() + math.log(2 * math.pi))",
        "taken for the variance",
    ),
    "half of all but the constant": (
        NLL,
        NLL_BODY,
        "0.5 * (squared_error * torch.exp(-log_var) + log_var) + math.log(2 * math.pi)",
        "belongs to the constant, too",
    ),
    "divided by the squared variance": (
        NLL,
        "torch.exp(-log_var)",
        "torch.exp(-2 * log_var)",
        "squared variance",
    ),
    "the price is a reward": (NLL, " + log_var + math", " - log_var + math", "log_var has the wrong sign"),
    "log_var is clamped": (
        NLL,
        "squared_error =",
        "log_var = log_var.clamp(-20, 20)\n    squared_error =",
        "is clamped to [-20, 20]",
    ),
    "no price": (NLL, " + log_var + math", " + math", "price of a large variance"),
    "summed over dimensions": (NLL, NLL_BODY, f"({NLL_BODY}).sum(-1)", "summed or averaged"),
    "one mean for all": (NLL, NLL_BODY, f"({NLL_BODY}).mean()", "summed or averaged"),
    "exp, then log": (NLL, "+ log_var +", "+ log_var.exp().log() +", "Use log_var itself"),
    "error is not squared": (NLL, ".square()", "", "not squared"),
    # 4.2
    "hard clamp": (BOUNDS, UPPER, "return log_var.clamp(min_log_var, max_log_var)", "hard clamp"),
    "upper bound only": (BOUNDS, LOWER, "return log_var", "from above only"),
    "lower bound only": (BOUNDS, UPPER, "pass", "from below only"),
    "lower bound first": (
        BOUNDS,
        UPPER,
        "log_var = min_log_var + softplus(log_var - min_log_var)\n"
        "    return max_log_var - softplus(max_log_var - log_var)",
        "upper one first",
    ),
    "softplus by hand overflows": (
        BOUNDS,
        UPPER,
        "softplus = lambda z: torch.log(1 + torch.exp(z))\n    " + UPPER,
        "exp overflows",
    ),
    "sign of the lower softplus": (BOUNDS, "return min_log_var + ", "return min_log_var - ", "sign"),
    "the upper softplus the other way": (
        BOUNDS,
        "softplus(max_log_var - log_var)",
        "softplus(log_var - max_log_var)",
        "argument of the upper softplus",
    ),
    "the lower softplus the other way": (
        BOUNDS,
        "softplus(log_var - min_log_var)",
        "softplus(min_log_var - log_var)",
        "argument of the lower softplus",
    ),
    "soft bounds and a clamp": (
        BOUNDS,
        LOWER,
        "return (min_log_var + softplus(log_var - min_log_var)).clamp(max=max_log_var)",
        "a clamp after",
    ),
    "no way back for the gradient": (
        BOUNDS,
        LOWER,
        "return (min_log_var + softplus(log_var - min_log_var)).detach()",
        "no gradient gets through",
    ),
    "tanh": (
        BOUNDS,
        UPPER,
        "return min_log_var + (max_log_var - min_log_var) * (1 + torch.tanh(log_var)) / 2",
        "scaled tanh",
    ),
    "sigmoid": (
        BOUNDS,
        UPPER,
        "return min_log_var + (max_log_var - min_log_var) * torch.sigmoid(log_var)",
        "sigmoid",
    ),
    "the same bounds for all dimensions": (
        BOUNDS,
        UPPER,
        "min_log_var, max_log_var = min_log_var[0], max_log_var[0]\n    " + UPPER,
        "bounds",
    ),
    # 4.3
    "no bias": (LAYER, PRODUCT, "x @ weight", "bias is missing"),
    "weights of the first member": (LAYER, PRODUCT, "x @ weight[0] + bias", "weights of the first"),
    "bias of the first member": (LAYER, PRODUCT, "x @ weight + bias[0]", "bias of the first"),
    "an activation": (LAYER, PRODUCT, "(x @ weight + bias).relu()", "activation"),
    "a list of the members' outputs": (LAYER, PRODUCT, "list(x @ weight + bias)", "torch.stack makes one"),
    "bias twice": (LAYER, PRODUCT, f"{PRODUCT} + bias", "added twice"),
    "another activation": (LAYER, PRODUCT, f"{PRODUCT}.tanh()", "(tanh)"),
    "transposed": (
        LAYER,
        PRODUCT,
        "x @ (weight.mT if weight.shape[1] == weight.shape[2] else weight) + bias",
        "transposed",
    ),
    "no shared inputs": (LAYER, PRODUCT, "torch.baddbmm(bias, x, weight)", "Error"),
    "shared inputs taken for own ones": (
        LAYER,
        PRODUCT,
        "torch.baddbmm(bias, x.unsqueeze(1), weight) if x.dim() == 2 and len(x) == len(weight) "
        "else x @ weight + bias",
        "shared",
    ),
    "members come second": (LAYER, PRODUCT, "(x @ weight + bias).transpose(0, 1)", "[E, N, out]"),
    # 4.4
    "a shuffle": (
        MEMBERS,
        ROWS,
        "torch.rand(ensemble_size, num_rows, generator=generator).argsort(dim=1)",
        "this is a shuffle",
    ),
    "the same rows for all": (
        MEMBERS,
        ROWS,
        "torch.randint(num_rows, (num_rows,), generator=generator).repeat(ensemble_size, 1)",
        "each has its own bootstrap",
    ),
    "the same rows, shuffled": (
        MEMBERS,
        ROWS,
        "torch.randint(num_rows, (num_rows,), generator=generator)["
        "torch.rand(ensemble_size, num_rows, generator=generator).argsort(dim=1)]",
        "each has its own bootstrap",
    ),
    "shape the other way": (
        MEMBERS,
        "(ensemble_size, num_rows)",
        "(num_rows, ensemble_size)",
        "[ensemble_size, num_rows]",
    ),
    "rows from 1 on": (MEMBERS, "torch.randint(num_rows,", "1 + torch.randint(num_rows,", "from 0"),
    "global randomness": (MEMBERS, ", generator=generator)", ")", "come from generator"),
    "rows are floats": (MEMBERS, ROWS, ROWS + ".float()", "expected integers"),
    "a list of the members' rows": (MEMBERS, ROWS, f"list({ROWS})", "torch.stack makes one"),
    "a list of elites": (MEMBERS, ELITES, f"{ELITES}.tolist()", "expected a tensor"),
    "the last row is never drawn": (
        MEMBERS,
        "torch.randint(num_rows,",
        "torch.randint(num_rows - 1,",
        "ever drawn",
    ),
    "rounded": (
        MEMBERS,
        ROWS,
        "((num_rows - 1) * torch.rand(ensemble_size, num_rows, generator=generator)).round().long()",
        "as likely as any other",
    ),
    "mean over members and samples": (MEMBERS, "dim=(1, 2)", "dim=(0, 1)", "members are the first axis"),
    "mean over members and dimensions": (MEMBERS, "dim=(1, 2)", "dim=(0, 2)", "members are the first axis"),
    "everything is averaged": (
        MEMBERS,
        LOSS,
        "nll.mean() + bound_penalty * (max_log_var - min_log_var).mean()",
        "NLL and regulariser are averaged",
    ),
    "penalty for each sample": (
        MEMBERS,
        LOSS,
        "(nll + bound_penalty * (max_log_var - min_log_var)).mean(dim=(1, 2)).sum()",
        "before the average",
    ),
    "penalty is not summed": (MEMBERS, "min_log_var).sum()", "min_log_var)", "missing in the regulariser"),
    "loss as a plain number": (MEMBERS, "return " + LOSS, f"return ({LOSS}).item()", "no .item()"),
    "values and indices of topk": (
        MEMBERS,
        ELITES,
        "losses.topk(num_elites, largest=False)",
        "all that topk",
    ),
    "the last of argsort": (MEMBERS, ELITES, "losses.argsort()[-num_elites:]", "in rising order"),
    "NaN is thrown out": (
        MEMBERS,
        "torch.where(holdout_losses.isnan(), torch.inf, holdout_losses)",
        "holdout_losses[~holdout_losses.isnan()]",
        "keep their numbers",
    ),
    "mean over members": (MEMBERS, "nll.mean(dim=(1, 2)).sum()", "nll.mean()", "averaged over the members"),
    "sum over everything": (MEMBERS, "nll.mean(dim=(1, 2)).sum()", "nll.sum()", "summed over everything"),
    "sum over samples": (MEMBERS, "nll.mean(dim=(1, 2))", "nll.mean(dim=2)", "summed over the samples"),
    "penalty pushes apart": (MEMBERS, "max_log_var - min_log_var", "min_log_var - max_log_var", "wrong sign"),
    "no penalty": (MEMBERS, LOSS, "nll.mean(dim=(1, 2)).sum()", "regulariser is missing"),
    "penalty is averaged": (
        MEMBERS,
        "(max_log_var - min_log_var).sum()",
        "(max_log_var - min_log_var).mean()",
        "regulariser is averaged",
    ),
    "one loss for each member": (
        MEMBERS,
        "nll.mean(dim=(1, 2)).sum()",
        "nll.mean(dim=(1, 2))",
        "the loss is one number",
    ),
    "worst members": (MEMBERS, ELITES, "losses.argsort(descending=True)[:num_elites]", "largest losses"),
    "losses, not numbers": (MEMBERS, ELITES, "losses.sort().values[:num_elites]", "expected the numbers"),
    "ranks": (MEMBERS, ELITES, "losses.argsort().argsort()[:num_elites]", "argsort twice"),
    "best last": (MEMBERS, ELITES, "losses.argsort()[:num_elites].flip(0)", "best comes last"),
    "in the order of members": (MEMBERS, ELITES, "losses.argsort()[:num_elites].sort().values", "best first"),
    "NaN is an elite": (
        MEMBERS,
        "torch.where(holdout_losses.isnan(), torch.inf, holdout_losses)",
        "holdout_losses.nan_to_num(-torch.inf)",
        "NaN is an elite",
    ),
    "NaN counts as the mean": (
        MEMBERS,
        "torch.where(holdout_losses.isnan(), torch.inf, holdout_losses)",
        "torch.where(holdout_losses.isnan(), holdout_losses.nanmean(), holdout_losses)",
        "comes before another one",
    ),
    "NaN counts as zero": (
        MEMBERS,
        "torch.where(holdout_losses.isnan(), torch.inf, holdout_losses)",
        "holdout_losses.nan_to_num()",
        "NaN is an elite",
    ),
    # 4.5
    "divides by E - 1": (SPLIT, "correction=0", "correction=1", "E - 1"),
    "standard deviation": (SPLIT, "means.var(", "means.std(", "expected the variance"),
    "swapped": (
        SPLIT,
        "VarianceParts(variances.mean(dim=0), means.var(dim=0, correction=0))",
        "VarianceParts(means.var(dim=0, correction=0), variances.mean(dim=0))",
        "swapped",
    ),
    "variance of the variances": (
        SPLIT,
        "variances.mean(dim=0)",
        "variances.var(dim=0, correction=0)",
        "variance of the variances",
    ),
    "mean of the squares": (
        SPLIT,
        "means.var(dim=0, correction=0)",
        "means.square().mean(dim=0)",
        "subtract the mean",
    ),
    "square of the mean std": (
        SPLIT,
        "variances.mean(dim=0)",
        "variances.sqrt().mean(dim=0).square()",
        "expected the mean variance",
    ),
    "measured from the mean of all": (
        SPLIT,
        "means.var(dim=0, correction=0)",
        "(means - means.mean()).square().mean(dim=0)",
        "the mean of all entries",
    ),
    "absolute deviations": (
        SPLIT,
        "means.var(dim=0, correction=0)",
        "(means - means.mean(dim=0)).abs().mean(dim=0)",
        "mean distance from the mean",
    ),
    "their sum alone": (
        SPLIT,
        "return VarianceParts(variances.mean(dim=0), means.var(dim=0, correction=0))",
        "return variances.mean(dim=0) + means.var(dim=0, correction=0)",
        "not their sum",
    ),
    "over all axes": (SPLIT, "variances.mean(dim=0)", "variances.mean()", "shape"),
    "over the last axis": (SPLIT, "means.var(dim=0,", "means.var(dim=-1,", "shape"),
    "total in place of epistemic": (
        SPLIT,
        "means.var(dim=0, correction=0)",
        "means.var(dim=0, correction=0) + variances.mean(dim=0)",
        "disagreement alone",
    ),
    # 4.6
    "one-sided quantile": (
        CALIBRATION,
        "torch.erfinv(levels.double())",
        "torch.erfinv(2 * levels.double() - 1)",
        "one-sided",
    ),
    "no root of two": (CALIBRATION, "math.sqrt(2) * ", "", "sqrt(2)"),
    "std is not used": (
        CALIBRATION,
        "(target - mean).abs() / std",
        "(target - mean).abs()",
        "std is not used",
    ),
    "divided by the variance": (CALIBRATION, "abs() / std)", "abs() / std**2)", "variance"),
    "signed errors": (CALIBRATION, "(target - mean).abs()", "(target - mean)", "absolute value"),
    "outside": (CALIBRATION, "unsqueeze(0) <= z", "unsqueeze(0) > z", "outside"),
    "counts": (CALIBRATION, ".double().mean(dim=1)", ".sum(dim=1)", "expected shares"),
    "coverage of each dimension": (CALIBRATION, "std).flatten().double()", "std).double()", "Error"),
    "coverage of the first dimension": (
        CALIBRATION,
        "/ std).flatten()",
        "/ std).reshape(len(mean), -1)[:, 0]",
        "only the first dimension",
    ),
    "z by erf": (
        CALIBRATION,
        "torch.erfinv(levels.double",
        "torch.erf(levels.double",
        "expected by its inverse",
    ),
    "divided by the root of two": (
        CALIBRATION,
        "math.sqrt(2) * ",
        "math.sqrt(0.5) * ",
        "expected multiplied",
    ),
    "std is taken for the variance": (CALIBRATION, "abs() / std)", "abs() / std**0.5)", "no square root"),
    "one std for all": (CALIBRATION, "abs() / std)", "abs() / std.mean())", "std is averaged"),
    "average over the levels": (CALIBRATION, "mean(dim=1)  # [L]", "mean(dim=0)", "not over the levels"),
    "absolute value of the mean": (
        CALIBRATION,
        "levels).abs().mean()",
        "levels).mean().abs()",
        "take it before",
    ),
    "the last level is missing": (
        CALIBRATION,
        "torch.arange(1, num_levels + 1) /",
        "torch.arange(1, num_levels) /",
        "the last level is missing",
    ),
    "levels from 0 to 1": (
        CALIBRATION,
        "torch.arange(1, num_levels + 1) / (num_levels + 1)",
        "torch.linspace(0, 1, num_levels)",
        "without both ends",
    ),
    "shapes are not compared": (
        CALIBRATION,
        "if not mean.shape == std.shape == target.shape:",
        "if False:",
        "where each would be compared with each: expected a ValueError",
    ),
    "signed distances": (CALIBRATION, "levels).abs().mean()", "levels).mean()", "cancel"),
    "squared distances": (CALIBRATION, "levels).abs().mean()", "levels).square().mean()", "squared"),
    "largest distance": (CALIBRATION, "levels).abs().mean()", "levels).abs().max()", "largest"),
    "other levels": (CALIBRATION, "/ (num_levels + 1)", "/ num_levels", "k / (L + 1)"),
    "number of levels is fixed": (
        CALIBRATION,
        "torch.arange(1, num_levels + 1) / (num_levels + 1)",
        "torch.arange(1, 20) / 20",
        "levels",
    ),
    "correlation of the numbers": (CALIBRATION, RANKS, "values", "expected of their ranks"),
    "ties get different ranks": (
        CALIBRATION,
        RANKS,
        "values.argsort(stable=True).argsort().double()",
        "expected their mean rank",
    ),
    "ties get the lowest rank": (CALIBRATION, RANKS, "(last - count + 1.0)[group]", "lowest of their ranks"),
    "argsort once": (CALIBRATION, RANKS, "values.argsort().double()", "rank correlation"),
    "dense ranks": (CALIBRATION, RANKS, "group.double()", "count as one"),
    "ties get the highest rank": (CALIBRATION, RANKS, "last[group].double()", "highest of their ranks"),
    "Spearman's formula for ranks without ties": (
        CALIBRATION,
        "float(torch.corrcoef(torch.stack(ranks))[0, 1])",
        "float(1 - 6 * (ranks[0] - ranks[1]).square().sum() / (len(x) * (len(x) ** 2 - 1)))",
        "without ties only",
    ),
    "deviations over N - 1": (
        CALIBRATION,
        "float(torch.corrcoef(torch.stack(ranks))[0, 1])",
        "float(torch.cov(torch.stack(ranks), correction=0)[0, 1] / (ranks[0].std() * ranks[1].std()))",
        "take the same in both",
    ),
    "covariance of the ranks": (CALIBRATION, "torch.corrcoef", "torch.cov", "it is the covariance"),
    # 4.7
    "sums are not mended": (
        REPLAY,
        "for _ in range(self.depth):\n            nodes = nodes // 2",
        "for _ in ():\n            nodes = nodes // 2",
        "not mended",
    ),
    "only the parents": (
        REPLAY,
        "for _ in range(self.depth):\n            nodes = nodes // 2",
        "for _ in range(1):\n            nodes = nodes // 2",
        "only the parents",
    ),
    "the difference is added": (
        REPLAY,
        "self.nodes[nodes] = values.to(torch.float64)",
        "change = values.to(torch.float64) - self.nodes[nodes]\n"
        "        for _ in range(self.depth + 1):\n"
        "            self.nodes.index_add_(0, nodes, change)\n"
        "            nodes = nodes // 2\n"
        "        return",
        "several times",
    ),
    "added to the leaf": (
        REPLAY,
        "self.nodes[nodes] = values.to(torch.float64)",
        "self.nodes[nodes] += values.to(torch.float64)",
        "in place of the old one",
    ),
    "added to the parents": (REPLAY, PARENT, PARENT.replace(" = ", " += "), "each parent afresh"),
    "written to a copy": (
        REPLAY,
        "self.nodes[nodes] = values.to(torch.float64)",
        "self.nodes[nodes].copy_(values)",
        "writes to a copy",
    ),
    "everybody leaves the left sum behind": (
        REPLAY,
        "torch.where(go_right, mass - left, mass)",
        "mass - left",
        "otherwise left, as it is",
    ),
    "divided by the smallest weight": (
        REPLAY,
        "weights / weights.max()",
        "weights / weights.min()",
        "by the smallest",
    ),
    "nodes for leaves": (REPLAY, "return nodes - 2**self.depth", "return nodes", "subtract 2**depth"),
    "left for right": (
        REPLAY,
        "nodes = 2 * nodes + go_right.long()",
        "nodes = 2 * nodes + 1 - go_right.long()",
        "leaves found",
    ),
    "the left sum is not left behind": (
        REPLAY,
        "mass = torch.where(go_right, mass - left, mass)",
        "mass = mass",
        "left child's sum behind",
    ),
    "end of a leaf": (REPLAY, "(mass >= left)", "(mass > left)", "belongs to the next one"),
    "leaf without priority": (REPLAY, " & (right > 0)", "", "priority 0"),
    "weights are not divided": (REPLAY, WEIGHTS, "weights.float()", "not divided by the largest"),
    "weights sum to one": (REPLAY, "weights / weights.max()", "weights / weights.sum()", "their sum"),
    "weights the wrong way": (
        REPLAY,
        "(num_stored * probabilities) ** -beta",
        "(num_stored * probabilities) ** beta",
        "exponent is -beta",
    ),
    "beta has no effect": (
        REPLAY,
        "(num_stored * probabilities) ** -beta",
        "1 / (num_stored * probabilities)",
        "beta has no effect",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    assert lost(MEMBERS, edited(MEMBERS, "nll.mean(dim=(1, 2)).sum()", "nll.mean()"))[0] == 3
    assert lost(CALIBRATION, edited(CALIBRATION, RANKS, "values"))[0] == 2
    assert lost(REPLAY, edited(REPLAY, WEIGHTS, "weights.float()"))[0] == 2


STUBS = {
    NLL: ["gaussian_nll"],
    BOUNDS: ["bound_log_var"],
    LAYER: ["ensemble_layer"],
    MEMBERS: ["bootstrap_rows", "ensemble_loss", "choose_elites"],
    SPLIT: ["split_variance"],
    CALIBRATION: ["interval_coverage", "expected_calibration_error", "rank_correlation"],
    REPLAY: ["SumTree", "importance_weights"],
}


def test_nothing_written_earns_nothing():
    for exercise, points in exercise_points(WEEK).items():
        stubs = [f"def {name}(*a, **k):\n    raise NotImplementedError\n" for name in STUBS[exercise]]
        assert lost_points(WEEK, {exercise: "\n".join(stubs)}) == points


TREE = """
class SumTree:
    def __init__(self, capacity):
        self.depth = math.ceil(math.log2(capacity))
        self.nodes = torch.zeros(2 ** (self.depth + 1), dtype=torch.float64)

    @property
    def total(self):
        return self.nodes[1].item()

    def get(self, rows):
        return self.nodes[rows + 2**self.depth]

"""

RIGHT = {
    "loss by torch.distributions": (
        NLL,
        """
        def gaussian_nll(mean, log_var, target):
            return -torch.distributions.Normal(mean, torch.exp(log_var / 2)).log_prob(target)
        """,
    ),
    "bounds by logaddexp": (
        BOUNDS,
        """
        def bound_log_var(log_var, min_log_var, max_log_var):
            zero = torch.zeros_like(log_var)
            log_var = max_log_var - torch.logaddexp(zero, max_log_var - log_var)
            return min_log_var + torch.logaddexp(zero, log_var - min_log_var)
        """,
    ),
    "bounds dimension by dimension": (
        BOUNDS,
        """
        def bound_log_var(log_var, min_log_var, max_log_var):
            def soft(z):
                return z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))

            columns = []
            for d in range(log_var.shape[-1]):
                x = max_log_var[d] - soft(max_log_var[d] - log_var[..., d])
                columns.append(soft(x - min_log_var[d]) + min_log_var[d])
            return torch.stack(columns, dim=-1)
        """,
    ),
    "layer by matmul": (
        LAYER,
        """
        def ensemble_layer(x, weight, bias):
            return x @ weight + bias
        """,
    ),
    "layer by einsum": (
        LAYER,
        """
        def ensemble_layer(x, weight, bias):
            spec = "eni,eio->eno" if x.dim() == 3 else "ni,eio->eno"
            return torch.einsum(spec, x, weight) + bias
        """,
    ),
    "layer by a loop": (
        LAYER,
        """
        def ensemble_layer(x, weight, bias):
            own = x if x.dim() == 3 else [x] * len(weight)
            return torch.stack([nn.functional.linear(a, w.T, b[0]) for a, w, b in zip(own, weight, bias)])
        """,
    ),
    "members in Python": (
        MEMBERS,
        """
        def bootstrap_rows(num_rows, ensemble_size, generator=None):
            members = range(ensemble_size)
            return torch.stack([torch.randint(num_rows, (num_rows,), generator=generator) for _ in members])

        def ensemble_loss(nll, min_log_var, max_log_var, bound_penalty):
            loss = sum(member.mean() for member in nll)
            for low, high in zip(min_log_var, max_log_var, strict=True):
                loss = loss + bound_penalty * (high - low)
            return loss

        def choose_elites(holdout_losses, num_elites):
            values = holdout_losses.tolist()
            order = sorted(range(len(values)), key=lambda e: (math.isnan(values[e]), values[e]))
            return torch.tensor(order[:num_elites])
        """,
    ),
    "members by rand, mean times E and topk": (
        MEMBERS,
        """
        def bootstrap_rows(num_rows, ensemble_size, generator=None):
            draws = torch.rand(ensemble_size, num_rows, generator=generator, dtype=torch.float64)
            return (num_rows * draws).long()

        def ensemble_loss(nll, min_log_var, max_log_var, bound_penalty):
            penalty = bound_penalty * max_log_var.sum() - bound_penalty * min_log_var.sum()
            return len(nll) * nll.mean() + penalty

        def choose_elites(holdout_losses, num_elites):
            return holdout_losses.topk(num_elites, largest=False).indices
        """,
    ),
    "split by the mean of squares": (
        SPLIT,
        """
        def split_variance(means, variances):
            center = means.mean(dim=0)
            return VarianceParts(sum(variances) / len(variances), ((means - center) ** 2).mean(dim=0))
        """,
    ),
    "split by the means' squares": (
        SPLIT,
        """
        def split_variance(means, variances):
            return torch.stack([variances.mean(dim=0), (means**2).mean(dim=0) - means.mean(dim=0) ** 2])
        """,
    ),
    "split in numpy, as a plain tuple": (
        SPLIT,
        """
        import numpy as np

        def split_variance(means, variances):
            return np.asarray(variances).mean(axis=0), np.asarray(means).var(axis=0)
        """,
    ),
    "calibration with scipy": (
        CALIBRATION,
        """
        from scipy.stats import norm, spearmanr

        def interval_coverage(mean, std, target, levels):
            if len({mean.shape, std.shape, target.shape}) > 1:
                raise ValueError("the shapes differ")
            error = ((target - mean) / std).abs().flatten().numpy()
            return torch.tensor([(error <= norm.ppf((1 + p) / 2)).mean() for p in levels.tolist()])

        def expected_calibration_error(mean, std, target, num_levels=19):
            levels = torch.linspace(0, 1, num_levels + 2)[1:-1]
            return (interval_coverage(mean, std, target, levels) - levels).abs().mean()

        def rank_correlation(x, y):
            return spearmanr(x, y).statistic
        """,
    ),
    "calibration in Python": (
        CALIBRATION,
        """
        def interval_coverage(mean, std, target, levels):
            if mean.shape != target.shape or std.shape != target.shape:
                raise ValueError("shapes")
            probability = torch.erf((target - mean).abs() / std / 2**0.5).flatten()
            return torch.stack([(probability <= p).float().mean() for p in levels])

        def expected_calibration_error(mean, std, target, num_levels=19):
            distances = []
            for k in range(1, num_levels + 1):
                p = torch.tensor([k / (num_levels + 1)])
                distances.append(abs(interval_coverage(mean, std, target, p).item() - p.item()))
            return sum(distances) / num_levels

        def rank_correlation(x, y):
            def ranks(v):
                smaller = (v[:, None] > v).double().sum(dim=1)
                equal = (v[:, None] == v).double().sum(dim=1)
                return smaller + (equal + 1) / 2

            a, b = ranks(x) - ranks(x).mean(), ranks(y) - ranks(y).mean()
            return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
        """,
    ),
    "tree by loops": (
        REPLAY,
        TREE
        + """
    def set(self, rows, values):
        for row, value in zip(rows.tolist(), values.tolist()):
            node = row + 2**self.depth
            self.nodes[node] = value
            while node > 1:
                node //= 2
                self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, mass):
        found = []
        for m in mass.tolist():
            node = 1
            while node < 2**self.depth:
                left, right = self.nodes[2 * node].item(), self.nodes[2 * node + 1].item()
                if m < left or right == 0:
                    node = 2 * node
                else:
                    m, node = m - left, 2 * node + 1
            found.append(node - 2**self.depth)
        return torch.tensor(found)


def importance_weights(probabilities, num_stored, beta):
    rarest = probabilities.min()
    return (rarest / probabilities) ** beta
""",
    ),
    "tree made anew, found by the cumulative sum": (
        REPLAY,
        TREE
        + """
    def set(self, rows, values):
        self.nodes[2**self.depth + rows] = values.double()
        for level in reversed(range(self.depth)):
            below = self.nodes[2 ** (level + 1) : 2 ** (level + 2)]
            self.nodes[2**level : 2 ** (level + 1)] = below[0::2] + below[1::2]

    def find(self, mass):
        leaves = self.nodes[2**self.depth :]
        last = leaves.nonzero().max()
        return torch.searchsorted(leaves.cumsum(0), mass.double(), right=True).clamp(max=last)


def importance_weights(probabilities, num_stored, beta):
    logs = -beta * (num_stored * probabilities).log()
    return (logs - logs.max()).exp()
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
