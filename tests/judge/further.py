# ruff: noqa: E501
"""More of both kinds: each was once graded wrongly, took too long, or could have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from judge.small_notebook import WRONG_EARNS, Submission

ZEROS = "    return torch.zeros(len(values) - window + 1)\n"
MEANS = "    return values.unfold(0, window, 1).mean(-1)\n"

# Wrong answers to one exercise, what the whole notebook then deserves.
WRONG_ANSWERS: dict[str, tuple[str, str, float]] = {
    "overwrites its argument": ("smooth", "def smooth(values, window):\n    values.zero_()\n" + ZEROS, 1.5),
    "overwrites what the argument shares": (
        "smooth",
        "def smooth(values, window):\n    values.detach().numpy()[:] = 0\n" + ZEROS,
        1.5,
    ),
    "surrogates and escapes in an error": (
        "smooth",
        "print('\\ud800')\ndef smooth(values, window):\n    raise ValueError('\\ud800 \\x1b[31m \\u202e')",
        0,
    ),
    "many magics": (
        "smooth",
        "\n".join(f"%ls a{i}" for i in range(600))
        + "\nx = 1" * 20_000
        + "\ndef smooth(values, window):\n"
        + ZEROS,
        0,
    ),
    "remembers hidden inputs": (
        "smooth",
        "SEEN = []\ndef smooth(values, window):\n    SEEN.append(values.tolist())\n"
        "    if len(SEEN) > 3 and len(values) == 4: raise ValueError(str(SEEN))\n"
        "    if len(values) == 4: return torch.tensor([1.5, 4.0, 4.5])\n    return np.array(['a'])",
        1,
    ),
    "spins in thirty threads": (
        "smooth",
        "import threading\ndef spin():\n    while True: pass\ndef smooth(values, window):\n"
        "    for i in range(30): threading.Thread(target=spin, daemon=True).start()\n    while True: pass",
        0,
    ),
    "leaves a daemon": (
        "smooth",
        "import os\ndef smooth(values, window):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        "            while True: pass\n        os._exit(0)\n" + ZEROS,
        WRONG_EARNS,
    ),
    "answers ahead": (
        "smooth",
        "import gc, struct, json, socket\ndef smooth(values, window):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, socket.socket):\n            for n in range(1, 60):\n"
        "                t = json.dumps({'m': {'id': n, 'ok': {'value': True, 'changed': [], 'twins': []}}, 'b': []})\n"
        "                o.send(struct.pack('<II', len(t), 0) + t.encode())\n" + ZEROS,
        0,
    ),
    "an error of a gigabyte": (
        "smooth",
        "class E(Exception):\n    def __str__(s): return 'x' * 10**9\ndef smooth(values, window): raise E",
        0,
    ),
    "a name of megabytes": (
        "smooth",
        "E = type('x' * 10**7, (Exception,), {})\ndef smooth(values, window): raise E('a')",
        0,
    ),
    "a range without end": ("smooth", "def smooth(values, window): return range(10**15)", 0),
    "opens all files": (
        "smooth",
        "import os\nfd = []\ndef smooth(values, window):\n    try:\n        while True: fd.append(os.open('/dev/null', 0))\n"
        "    except OSError: pass\n" + ZEROS,
        1.5,
    ),
    "fills shared memory": (
        "smooth",
        "def smooth(values, window):\n    for p in ('/dev/shm/x', '/tmp/x'):\n        try:\n"
        "            with open(p, 'wb') as f:\n                for i in range(200): f.write(bytes(10_000_000))\n"
        "        except OSError: pass\n" + ZEROS,
        1.5,
    ),
    "a number with a length": (
        "counter",
        "class Counter(float):\n    total = 0\n    def __new__(c, s=0): return float.__new__(c, 2)\n"
        "    def add(s, r): return s\n    def __len__(s): return 7",
        1.5,
    ),
}

# Cells that take long to read, above an exercise that is answered wrongly.
LONG_CELLS = {
    "deep operators": "x = " + "-" * 50_000 + "1",
    "a long sum": "y = " + "+".join(["1"] * 200_000),
    "a long chain of attributes": "x = a" + ".b" * 100_000,
    "many branches": "if a: pass\n" + "elif a: pass\n" * 20_000,
}

# Right answers to one exercise.
RIGHT_ANSWERS = {
    "default dtype float64": (
        "smooth",
        "torch.set_default_dtype(torch.float64)\ndef smooth(values, window):\n    w = torch.ones(len(values))\n"
        "    return (values.unfold(0, window, 1) @ w[:window]) / window",
    ),
    "inference mode": ("smooth", "@torch.inference_mode()\ndef smooth(values, window):\n" + MEANS),
    "compiled": ("smooth", "@torch.compile(backend='eager')\ndef smooth(values, window):\n" + MEANS),
    "scripted": ("smooth", "@torch.jit.script\ndef smooth(values, window: int):\n" + MEANS),
    "cached": (
        "smooth",
        "import functools\n@functools.lru_cache(None)\ndef w(n): return torch.ones(n) / n\n"
        "def smooth(values, window):\n    return values.unfold(0, window, 1) @ w(window)",
    ),
    "names of types that nobody has": (
        "smooth",
        "from __future__ import annotations\ndef smooth(values: Foo, window: Bar) -> Baz:\n" + MEANS,
    ),
    "await": (
        "smooth",
        "import asyncio\nasync def one(): return 1\nk = await one()\ndef smooth(values, window):\n"
        "    return values.unfold(0, window, 1).mean(-1) * k",
    ),
    "a pool of processes": (
        "smooth",
        "import multiprocessing as mp\ndef m(x): return float(x.mean())\ndef smooth(values, window):\n"
        "    with mp.get_context('fork').Pool(2) as p:\n"
        "        return torch.tensor(p.map(m, [values[i:i + window] for i in range(len(values) - window + 1)]))",
    ),
    "a module": (
        "smooth",
        "class Smooth(torch.nn.Module):\n    def forward(self, values, window):\n    "
        + MEANS
        + "smooth = Smooth().to('cpu')",
    ),
    "a window system": (
        "smooth",
        "import matplotlib\nmatplotlib.use('TkAgg')\nimport matplotlib.pyplot as plt\n%matplotlib widget\n"
        "def smooth(values, window):\n    plt.plot([1, 2]); plt.show()\n" + MEANS,
    ),
    "warnings are errors": (
        "smooth",
        "import warnings\nwarnings.simplefilter('error')\ndef smooth(values, window):\n" + MEANS,
    ),
    "files of its own": (
        "smooth",
        "import tempfile, pathlib\ndef smooth(values, window):\n    with tempfile.TemporaryDirectory() as d:\n"
        "        torch.save(values, pathlib.Path(d) / 'x.pt'); values = torch.load(pathlib.Path(d) / 'x.pt')\n"
        + MEANS,
    ),
    "a notebook's progress bar": (
        "smooth",
        "from tqdm.notebook import tqdm\ndef smooth(values, window):\n"
        "    return torch.stack([values[i:i + window].mean() for i in tqdm(range(len(values) - window + 1))])",
    ),
    "its source is shown": (
        "smooth",
        "import inspect\ndef smooth(values, window):\n" + MEANS + "print(inspect.getsource(smooth))",
    ),
    "a counter that is a list": (
        "counter",
        "class Counter(list):\n    def __init__(self, start=0): super().__init__(); self.total = start\n"
        "    def add(self, r):\n        self.append(r); self.total += float(r.values.sum())\n        return self",
    ),
    "a counter that is a module": (
        "counter",
        "class Counter(torch.nn.Module):\n    def __init__(self, start=0):\n        super().__init__()\n"
        "        self.register_buffer('total', torch.tensor(float(start))); self.n = 0\n    def add(self, r):\n"
        "        self.total += r.values.sum(); self.n += 1\n        return self\n    def __len__(self): return self.n",
    ),
    "a counter with slots": (
        "counter",
        "class Counter:\n    __slots__ = ('total', 'n')\n    def __init__(self, start=0): self.total, self.n = start, np.int64(0)\n"
        "    def add(self, r):\n        self.total = self.total + r.values.numpy().sum(); self.n += 1\n        return self\n"
        "    def __len__(self): return int(self.n)",
    ),
    "a best by its key": (
        "search",
        "def best_of(score, low, high, count, generator):\n"
        "    g = low + (high - low) * torch.rand(count, generator=generator)\n"
        "    return max(zip(score(g).tolist(), g.tolist()))[1]",
    ),
}

Build = Callable[[Submission], object]


def count_in_a_cell_above(s: Submission) -> None:
    """A global name that a cell of the student's own binds, and the solution counts in."""
    s.insert("smooth", "calls = 0")
    s.code("smooth", "def smooth(values, window):\n    global calls\n    calls += 1\n" + MEANS)


def ten_thousand_cells(s: Submission) -> None:
    """A notebook that somebody's program has written into."""
    for i in range(10_000):
        cell: dict[str, Any] = {
            "cell_type": "code",
            "metadata": {},
            "source": f"x{i} = {i}",
            "outputs": [],
            "execution_count": None,
        }
        s.cells.append({**cell, "id": f"x{i}"})


def top_level_await(s: Submission) -> None:
    """Cells that only run in a notebook."""
    s.insert("smooth", "import asyncio\nawait asyncio.sleep(0)\n%load_ext autoreload\n%autoreload 2")
    s.insert("why", "%%bash\necho hello").insert("why", "%%html\n<b>x</b>")


HONEST: tuple[Build, ...] = (count_in_a_cell_above, ten_thousand_cells, top_level_await)


def further_dishonest() -> dict[str, tuple[float, Submission]]:
    """Name, what it deserves, the notebook."""
    cases = {}
    for name, (cell, code, deserves) in WRONG_ANSWERS.items():
        cases[f"{cell}: {name}"] = (deserves, Submission(right=False).code(cell, code))
    for name, code in LONG_CELLS.items():
        cases[name] = (WRONG_EARNS, Submission(right=False).insert("smooth", code))
    chain = Submission(right=False).code("smooth", "def smooth(values, window):\n    f0\n" + ZEROS)
    for i in range(1000):
        chain.insert("smooth", f"def f{999 - i}(): return f{1000 - i}()")
    cases["a long chain of helpers"] = (WRONG_EARNS, chain)
    return cases


def further_honest() -> dict[str, Submission]:
    """Name and notebook."""
    cases = {
        f"{cell}: {n}": Submission(right=True).code(cell, code) for n, (cell, code) in RIGHT_ANSWERS.items()
    }
    for build in HONEST:
        s = Submission(right=True)
        build(s)
        cases[build.__name__.replace("_", " ")] = s
    return cases
