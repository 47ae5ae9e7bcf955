# ruff: noqa: E501
"""Unusual submissions of honest students: each deserves all ten points."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

from judge.further import further_honest
from judge.small_notebook import Submission

# Correct forms of smooth.
FORMS = {
    "loops": "def smooth(values, window):\n    out = []\n    for i in range(len(values) - window + 1):\n"
    "        out.append(sum(float(v) for v in values[i:i + window]) / window)\n    return torch.tensor(out)",
    "cumulative sums": "def smooth(v, n):\n    c = torch.cat([torch.zeros(1), v.cumsum(0)])\n    return (c[n:] - c[:-n]) / n",
    "float64": "def smooth(values, window):\n    return values.double().unfold(0, window, 1).mean(-1)",
    "numpy": "def smooth(values, window):\n    v = np.asarray(values)\n"
    "    return np.convolve(v, np.ones(window) / window, 'valid')",
    "numpy float32": "def smooth(values, window):\n    v = np.asarray(values, dtype=np.float32)\n"
    "    return np.convolve(v, np.ones(window, np.float32) / window, 'valid').astype(np.float32)",
    "requires grad": "def smooth(values, window):\n    w = torch.nn.Parameter(torch.full((window,), 1 / window))\n"
    "    return torch.as_tensor(values).unfold(0, window, 1) @ w",
    "decorated": "import functools\ndef quiet(f):\n    @functools.wraps(f)\n    def g(*a, **k): return f(*a, **k)\n"
    "    return g\n@quiet\n@torch.no_grad()\ndef smooth(values, window):\n    return values.unfold(0, window, 1).mean(-1)",
    "lambda": "smooth = lambda values, window: values.unfold(0, window, 1).mean(dim=-1)",
    "class with call": "class Smooth:\n    def __call__(self, values, window):\n"
    "        return values.unfold(0, window, 1).mean(-1)\nsmooth = Smooth()",
    "prints": "def smooth(values, window):\n    for i in range(3000): print(i)\n    return values.unfold(0, window, 1).mean(-1)",
    "warns": "import warnings, logging, sys\ndef smooth(values, window):\n    warnings.warn('short')\n"
    "    logging.warning('short')\n    sys.stderr.write('short')\n    return values.unfold(0, window, 1).mean(-1)",
    "progress bar": "from tqdm.auto import tqdm\ndef smooth(values, window):\n"
    "    return torch.stack([values[i:i + window].mean() for i in tqdm(range(len(values) - window + 1))])",
    "magic above": "%%time\ndef smooth(values, window):\n    return values.unfold(0, window, 1).mean(-1)",
    "draws": "import matplotlib.pyplot as plt\n%matplotlib inline\ndef smooth(values, window):\n"
    "    plt.plot([1, 2]); plt.show()\n    return values.unfold(0, window, 1).mean(-1)",
    "other names": "def smooth(x, n=2, *, keep=False):\n    return x.unfold(0, n, 1).mean(-1)",
    "shows a value": "def smooth(values, window):\n    return values.unfold(0, window, 1).mean(-1)\nsmooth(torch.ones(4), 2)",
    "fails after it": "def smooth(values, window):\n    return values.unfold(0, window, 1).mean(-1)\nsmooth(1, 2)",
    "shell command": "!echo hello\nfiles = !ls\ndef smooth(values, window):\n    return values.unfold(0, window, 1).mean(-1)",
    "recursive": "def smooth(values, window):\n    if len(values) < window: return values[:0]\n"
    "    return torch.cat([values[:window].mean()[None], smooth(values[1:], window)])",
    "a subprocess": "import subprocess\ndef smooth(values, window):\n    subprocess.run(['true'], check=True)\n"
    "    return values.unfold(0, window, 1).mean(-1)",
    "threads": "from concurrent.futures import ThreadPoolExecutor\ndef smooth(values, window):\n"
    "    with ThreadPoolExecutor(2) as p:\n"
    "        return torch.stack(list(p.map(lambda i: values[i:i + window].mean(), range(len(values) - window + 1))))",
}  # fmt: skip

# Cells of the student's own, above the exercise `smooth` (right) and again above `test_values`.
SCRATCH = {
    "scratch fails": "1 / 0",
    "scratch rebinds what tests use": "signal = result = long = points = generator = None",
    "scratch rebinds the solution": "smooth = None",
    "scratch rebinds modules": "torch = np = None",
    "scratch runs long": "import time\nfor _ in range(60): time.sleep(1)",
    "scratch waits": "name = input('?')",
    "scratch seeds": "import random\nrandom.seed(0); torch.manual_seed(1); np.random.seed(3)",
    "scratch has no syntax": "def broken(:",
    "scratch uses magics": "%timeit -n1 -r1 1 + 1\n%pwd\n!ls\n%load_ext autoreload",
    "scratch displays": "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))\nget_ipython()",
}

STRUCTURE: list[Callable[[Submission], object]] = []


def structure(build: Callable[[Submission], object]) -> Callable[[Submission], object]:
    """Registers a builder that changes the notebook itself."""
    STRUCTURE.append(build)
    return build


@structure
def plain(s: Submission) -> None:
    pass


@structure
def solution_below_its_tests(s: Submission) -> None:
    s.cells.insert(s.index("test_twice"), s.cells.pop(s.index("smooth")))


@structure
def solutions_at_the_end(s: Submission) -> None:
    for name in ("smooth", "counter", "search"):
        s.cells.append(s.cells.pop(s.index(name)))


@structure
def imports_deleted(s: Submission) -> None:
    del s.cells[s.index("imports")]


@structure
def imports_at_the_end(s: Submission) -> None:
    s.cells.append(s.cells.pop(s.index("imports")))
    s.code("smooth", "@torch.no_grad()\n" + s.cell("smooth")["source"])


@structure
def helper_in_own_cell(s: Submission) -> None:
    s.insert(
        "smooth", "from math import *\nSCALE = 1.0\ndef windows(v, n):\n    return v.unfold(0, n, 1) * SCALE"
    )
    s.code("smooth", "def smooth(values, window):\n    return windows(values, window).mean(-1)")


@structure
def helper_below(s: Submission) -> None:
    s.insert("why", "def windows(v, n):\n    return v.unfold(0, n, 1)")
    s.code("smooth", "def smooth(values, window):\n    return windows(values, window).mean(-1)")


@structure
def module_written_by_a_cell(s: Submission) -> None:
    s.insert("smooth", "%%writefile windows.py\ndef windows(v, n):\n    return v.unfold(0, n, 1)\n")
    s.code("smooth", "from windows import windows\ndef smooth(v, n):\n    return windows(v, n).mean(-1)")


@structure
def module_beside_the_notebook(s: Submission) -> None:
    s.files["windows.py"] = b"def windows(v, n):\n    return v.unfold(0, n, 1)\n"
    s.code("smooth", "import windows as w\ndef smooth(v, n):\n    return w.windows(v, n).mean(-1)")


@structure
def solution_split_between_statements(s: Submission) -> None:
    cell = s.cell("smooth")
    half = copy.deepcopy(cell)
    cell["source"] = "def windows(v, n):\n    return v.unfold(0, n, 1)"
    half["source"] = "def smooth(values, window):\n    return windows(values, window).mean(-1)"
    s.cells.insert(s.index("smooth") + 1, half)


@structure
def solution_split_within_a_function(s: Submission) -> None:
    cell = s.cell("smooth")
    half = copy.deepcopy(cell)
    cell["source"] = "def smooth(values, window):\n    parts = values.unfold(0, window, 1)"
    half["source"] = "    return parts.mean(-1)"
    s.cells.insert(s.index("smooth") + 1, half)


@structure
def older_copy_that_fails_above_the_solution(s: Submission) -> None:
    older = copy.deepcopy(s.cell("smooth"))
    older["source"] = (
        "def smooth(values, window):\n    return values\n\nassert len(smooth(torch.ones(5), 2)) == 4"
    )
    s.cells.insert(s.index("smooth"), older)


@structure
def solution_wrapped_in_a_second_half(s: Submission) -> None:
    half = copy.deepcopy(s.cell("smooth"))
    half["source"] = "plain = smooth\ndef smooth(values, window):\n    return plain(values, window)"
    s.cells.insert(s.index("smooth") + 1, half)


@structure
def stub_kept_beside_the_solution(s: Submission) -> None:
    stub = copy.deepcopy(s.cell("smooth"))
    stub["source"] = "def smooth(values, window):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    s.cells.insert(s.index("smooth") + 1, stub)


@structure
def solution_in_a_cell_of_its_own(s: Submission) -> None:
    s.insert("test_shape", s.cell("smooth")["source"])
    s.code("smooth", "def smooth(values, window):\n    raise NotImplementedError()")


@structure
def solution_turned_into_markdown(s: Submission) -> None:
    cell = s.cell("smooth")
    cell["cell_type"] = "markdown"
    del cell["outputs"], cell["execution_count"]


@structure
def metadata_of_solution_lost(s: Submission) -> None:
    s.cell("smooth")["metadata"] = {}


@structure
def kernel_of_another_name(s: Submission) -> None:
    s.notebook["metadata"]["kernelspec"] = {
        "name": "conda-env-rl-py",
        "display_name": "rl",
        "language": "python",
    }
    s.notebook["metadata"]["colab"] = {"provenance": []}
    s.notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for cell in s.cells:
        cell["metadata"]["vscode"] = {"languageId": "python"}


@structure
def sources_as_lists(s: Submission) -> None:
    for cell in s.cells:
        cell["source"] = cell["source"].splitlines(keepends=True)


@structure
def minor_version_0(s: Submission) -> None:
    s.notebook["nbformat_minor"] = 0
    for cell in s.cells:
        del cell["id"]


@structure
def tests_deleted(s: Submission) -> None:
    s.cells[:] = [cell for cell in s.cells if not s.flags(cell).get("grade")]


@structure
def tests_edited(s: Submission) -> None:
    s.code("test_values", "print(smooth(signal, 2))  # what does it give?\nassert False")


@structure
def answer_as_properties(s: Submission) -> None:
    s.code(
        "counter",
        "from dataclasses import dataclass, field\n@dataclass\nclass Counter:\n    start: float = 0\n"
        "    readings: list = field(default_factory=list)\n    def add(self, r):\n        self.readings += [r]\n"
        "        return self\n    @property\n    def total(self):\n"
        "        return self.start + sum(r.values.sum() for r in self.readings)\n"
        "    def __len__(self): return len(self.readings)",
    )


@structure
def search_in_pieces(s: Submission) -> None:
    s.code(
        "search",
        "def best_of(score, low, high, count, generator):\n    best, top = None, -float('inf')\n"
        "    for part in range(4):\n        x = torch.empty(count // 4).uniform_(low, high, generator=generator)\n"
        "        y = score(x)\n        if y.max() > top: best, top = x[y.argmax()], y.max()\n"
        "    return best.item()",
    )


def all_honest() -> dict[str, tuple[bytes, dict[str, bytes]]]:
    """Name, the notebook and the files beside it."""
    cases: dict[str, tuple[bytes, dict[str, bytes]]] = {}
    for name, code in FORMS.items():
        s = Submission(right=True).code("smooth", code)
        cases[f"smooth: {name}"] = (s.data(), s.files)
    for name, code in SCRATCH.items():
        s = Submission(right=True).insert("smooth", code).insert("test_values", code).insert("why", code)
        cases[name] = (s.data(), s.files)
    for build in STRUCTURE:
        s = Submission(right=True)
        build(s)
        cases[build.__name__.replace("_", " ")] = (s.data(), s.files)
    text = json.dumps(Submission(right=True).notebook, indent=1)
    cases["byte-order mark and CRLF"] = (b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), {})
    for name, s in further_honest().items():
        cases[name] = (s.data(), s.files)
    return cases
