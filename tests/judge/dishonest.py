# ruff: noqa: E501
"""Submissions that cheat, break or attack: what each is, and what its code deserves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from judge.further import further_dishonest
from judge.small_notebook import WRONG_EARNS, Submission

Built = tuple[bytes, dict[str, bytes]]

# Cells of the student's own above the first exercise; every exercise is answered wrongly.
CELLS = {
    "patches torch": "import torch, numpy as np\ntorch.allclose = torch.equal = lambda *a, **k: True\n"
    "np.testing.assert_allclose = lambda *a, **k: None",
    "patches builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.float = lambda x: 0.3\n"
    "builtins.len = lambda x: 2",
    "input transformer": "def drop(lines):\n    return [l.replace('assert', 'print') for l in lines]\n"
    "get_ipython().input_transformers_post.append(drop)",
    "ast transformer": "import ast\nclass T(ast.NodeTransformer):\n    def visit_Assert(self, n): return ast.Pass()\n"
    "get_ipython().ast_transformers.append(T())",
    "custom exception handler": "get_ipython().set_custom_exc((BaseException,), lambda *a, **k: None)",
    "patches run_cell": "s = get_ipython()\ns.run_cell = lambda *a, **k: None\ntype(s).run_cell = lambda *a, **k: None",
    "patches the session": "import gc, sys\nfor m in list(sys.modules):\n    if 'judge_child' in m:\n"
    "        for n, f in list(vars(sys.modules[m]).items()):\n            if callable(f): setattr(sys.modules[m], n, None)",
    "background thread": "import threading, time, torch\ndef work():\n    while True:\n"
    "        torch.allclose = lambda *a, **k: True; time.sleep(0.001)\n"
    "threading.Thread(target=work, daemon=True).start()",
    "trace function": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)",
    "atexit": "import atexit, os\natexit.register(lambda: os.kill(os.getppid(), 9))",
    "kills the parent": "import os\nos.kill(os.getppid(), 9)",
    "kills everything": "import os\nos.kill(-1, 9)",
    "kills every number": "import os\nfor p in range(2, 2000):\n    try: os.kill(p, 9)\n    except OSError: pass",
    "exits": "import os\nos._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    "waits for input": "input('name?')",
    "closes all files": "import os\nos.closerange(0, 256)",
    "floods stdout": "while True: print('x' * 10000)",
    "floods displays": "from IPython.display import display\nfor i in range(50000): display(i)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "memory": "hog = []\nwhile True: hog.append(bytearray(50_000_000))",
    "fills the disk": "for i in range(10000):\n    open(f'file{i}', 'wb').write(bytes(5_000_000))",
    "one big file": "f = open('big', 'wb')\nwhile True: f.write(bytes(1_000_000))",
    "ignores signals": "import signal, time\nfor s in (2, 14, 15): signal.signal(s, signal.SIG_IGN)\n"
    "while True:\n    try: time.sleep(100)\n    except BaseException: pass",
    "child outlives": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)",
    "many children": "import subprocess\nfor i in range(500): subprocess.Popen(['sleep', '1000'])",
    "reads the environment": "import os\nprint(dict(os.environ))\nprint(open('/proc/1/environ').read())",
    "reads processes": "import os\nfor p in os.listdir('/proc'):\n    if p.isdigit(): print(open(f'/proc/{p}/cmdline').read())",
    "lists the machine": "import os\nfor _, (d, _, f) in zip(range(300), os.walk('/')):\n    print(d, f)",
    "writes outside": f"import pathlib\nfor p in ('/usr/x', '/etc/x', '/judge/x', '/x', {str(Path.home() / 'x')!r}, '/home/x'):\n"
    "    try: pathlib.Path(p).write_text('x')\n    except OSError: pass",
    "plants a kernel": "import os\np = os.path.expanduser('~/.local/share/jupyter/kernels/python3')\n"
    "os.makedirs(p)\nopen(p + '/kernel.json', 'w').write('{}')",
    "ptrace": "import ctypes\nprint(ctypes.CDLL(None).ptrace(16, 1, 0, 0))",
    "new namespace": "import ctypes\nprint(ctypes.CDLL(None).unshare(0x10000000))",
    "symlink in scratch": "import os\nos.symlink('/', 'root')\nprint(os.listdir('root/root'))",
    "shadows a module": "import sys, types\nsys.modules['numpy'] = sys.modules['torch'] = types.ModuleType('numpy')",
    "imports the reference": "import mbrl_course\nfrom mbrl_autograder.judge import engine",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "deletes scratch": "import shutil, os\nshutil.rmtree('.', ignore_errors=True)\nos.rmdir(os.getcwd())",
}

# Each needs that its cell is run: the solution uses the name `helper` that it defines.
NEEDED = (
    "patches the session", "kills everything", "exits", "segmentation fault", "floods stdout", "fork bomb",
    "thread bomb", "memory", "fills the disk", "ignores signals", "closes all files", "input transformer",
    "lists the machine", "recursion",
)  # fmt: skip

# With these, the call still returns its wrong answer.
HARMLESS = ("input transformer", "lists the machine")

# Bodies of smooth; nothing else is answered, so what `smooth` returns decides.
RETURNS = {
    "lies about equality": (
        "class Lie:\n    shape = (3,)\n    def __eq__(s, o): return True\n    def __getattr__(s, n): return s\n"
        "    def __call__(s, *a, **k): return s\n    def __sub__(s, o): return 0.0\n    __rsub__ = __sub__\n"
        "    def __float__(s): return 0.0\n    def __lt__(s, o): return True\n    def __bool__(s): return True\n"
        "    def __array__(s, *a, **k): return np.zeros(3)\n"
        "def smooth(values, window): return Lie()",
        1,
    ),
    "tensor that agrees": (
        "class Yes(torch.Tensor):\n    @classmethod\n    def __torch_function__(c, f, t, a=(), k=None):\n"
        "        if f.__name__ in ('allclose', 'eq'): return True\n"
        "        with torch._C.DisableTorchFunctionSubclass(): return f(*a, **(k or {}))\n"
        "def smooth(values, window): return torch.zeros(len(values) - window + 1).as_subclass(Yes)",
        1.5,
    ),
    "array that agrees": (
        "class Yes(np.ndarray):\n    def __array_function__(s, *a, **k): return True\n"
        "    def __array_ufunc__(s, *a, **k): return True\n"
        "def smooth(values, window): return np.zeros(len(values) - window + 1).view(Yes)",
        1.5,
    ),
    "not a number": (
        "def smooth(values, window): return torch.full((len(values) - window + 1,), float('nan'))",
        1,
    ),
    "infinite": (
        "def smooth(values, window): return torch.full((len(values) - window + 1,), float('inf'))",
        1,
    ),
    "pickle bomb": (
        "import os\nclass P:\n    shape = (3,)\n    def __reduce__(s): return (os.system, ('touch BOMB',))\n"
        "def smooth(values, window): return P()",
        1,
    ),
    "huge list": ("def smooth(values, window): return [0.0] * 10**8", 0),
    "huge tensor": ("def smooth(values, window): return torch.zeros(1).expand(10**12)", 0),
    "deep list": (
        "def smooth(values, window):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
        0,
    ),
    "list of itself": ("def smooth(values, window):\n    x = []\n    x.append(x)\n    return x", 0),
    "endless generator": ("def smooth(values, window):\n    while True: yield 0.0", 0),
    "endless length": (
        "class L:\n    def __len__(s): return 10**18\n    def __getitem__(s, i): return 0.0\n    shape = (3,)\n"
        "def smooth(values, window): return L()",
        1,
    ),
    "None": ("def smooth(values, window): return None", 0),
    "a string": ("def smooth(values, window): return 'full marks'", 0),
    "a huge number": ("def smooth(values, window): return 10 ** 100000", 0),
    "stops iterating": ("def smooth(values, window): raise StopIteration", 0),
    "keyboard interrupt": ("def smooth(values, window): raise KeyboardInterrupt", 0),
    "system exit": ("import sys\ndef smooth(values, window): sys.exit(0)", 0),
    "exits in the call": ("import os\ndef smooth(values, window): os._exit(0)", 0),
    "endless": ("def smooth(values, window):\n    while True: pass", 0),
    "endless and deaf": (
        "def smooth(values, window):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
        0,
    ),
    "error with an evil text": (
        "class E(Exception):\n    def __str__(s): raise RuntimeError\ndef smooth(values, window): raise E",
        0,
    ),
    "shows the hidden input": ("def smooth(values, window): raise ValueError(str(values.tolist()))", 0),
    "forged frames": (
        "import os, socket, struct, json\ndef smooth(values, window):\n"
        "    t = json.dumps({'m': {'id': 99, 'ok': {'value': True, 'changed': [], 'twins': []}}, 'b': []}).encode()\n"
        "    for fd in range(3, 40):\n        try: os.write(fd, struct.pack('<II', len(t), 0) + t)\n        except OSError: pass\n"
        "    return torch.zeros(len(values) - window + 1)",
        0,
    ),
    "garbage frames": (
        "import os\ndef smooth(values, window):\n    for fd in range(3, 40):\n"
        "        try: os.write(fd, b'\\xff' * 4096)\n        except OSError: pass\n"
        "    return torch.zeros(len(values) - window + 1)",
        0,
    ),
    "closes the pipe": (
        "import os\ndef smooth(values, window):\n    os.closerange(3, 60)\n    return torch.zeros(3)",
        0,
    ),
    "fork returns twice": (
        "import os\ndef smooth(values, window):\n    os.fork()\n    return torch.zeros(len(values) - window + 1)",
        1.5,
    ),
    "patches inputs": (
        "_t = torch.linspace\ntorch.linspace = lambda *a: torch.zeros(20)\ntorch.tensor = lambda *a: _t(0, 0, 3)\n"
        "def smooth(values, window): return torch.zeros(len(values) - window + 1)",
        1.5,
    ),
    "walks the frames": (
        "import sys, gc\ndef smooth(values, window):\n    f = sys._getframe()\n    while f:\n"
        "        for v in f.f_locals.values():\n            if 'SECRET-' + 'EXPECT' in str(v)[:10000]: print(v)\n"
        "        f = f.f_back\n"
        "    for o in gc.get_objects():\n        if isinstance(o, str) and 'SECRET-' + 'EXPECT' in o: print(o)\n"
        "    return torch.zeros(len(values) - window + 1)",
        1.5,
    ),
}

# Bodies of best_of, which gets a function of the test and a generator.
SEARCHES = {
    "forged generator": "def best_of(score, low, high, count, generator):\n    score(torch.zeros(count))\n"
    "    generator.set_state(torch.zeros_like(generator.get_state()))\n    return torch.tensor(0.9)",
    "looks into the function": "def best_of(score, low, high, count, generator):\n"
    "    return torch.tensor(score.__globals__['best'])",
    "asks for attributes": "def best_of(score, low, high, count, generator):\n"
    "    return torch.tensor(getattr(score, 'func_globals'))",
    "calls forever": "def best_of(score, low, high, count, generator):\n    while True: score(torch.zeros(1))",
    "calls unknown numbers": "def best_of(score, low, high, count, generator):\n    for n in range(1000):\n"
    "        try: type(score)(score._session, n)('x')\n        except Exception: pass\n    return torch.tensor(0.9)",
}

STRUCTURE: dict[str, tuple[float, Callable[[Submission], object]]] = {}


def structure(deserves: float) -> Callable[[Callable[[Submission], object]], Callable[[Submission], object]]:
    """Registers a builder that changes the notebook itself."""

    def register(build: Callable[[Submission], object]) -> Callable[[Submission], object]:
        STRUCTURE[build.__name__.replace("_", " ")] = (deserves, build)
        return build

    return register


@structure(WRONG_EARNS)
def points_of_a_hundred(s: Submission) -> None:
    for cell in s.cells:
        if "points" in s.flags(cell):
            s.flags(cell)["points"] = 100


@structure(WRONG_EARNS)
def tests_as_markdown(s: Submission) -> None:
    for cell in s.cells:
        if s.flags(cell).get("grade"):
            cell["cell_type"] = "markdown"


@structure(WRONG_EARNS)
def tests_marked_as_solutions(s: Submission) -> None:
    for cell in s.cells:
        if s.flags(cell).get("grade"):
            s.flags(cell).update(solution=True, locked=False)


@structure(WRONG_EARNS)
def tests_rewritten(s: Submission) -> None:
    for cell in s.cells:
        if s.flags(cell).get("grade"):
            cell["source"] = "100"


@structure(WRONG_EARNS)
def tests_deleted(s: Submission) -> None:
    s.cells[:] = [cell for cell in s.cells if not s.flags(cell).get("grade")]


@structure(WRONG_EARNS)
def tests_tagged_to_be_skipped(s: Submission) -> None:
    for cell in s.cells:
        cell["metadata"]["tags"] = ["skip-execution", "raises-exception"]


@structure(WRONG_EARNS)
def locked_cell_rewritten(s: Submission) -> None:
    s.code("imports", "class torch:\n    allclose = equal = lambda *a: True")


@structure(WRONG_EARNS)
def test_named_like_a_solution(s: Submission) -> None:
    s.flags(s.cell("test_values"))["grade_id"] = "smooth"


@structure(WRONG_EARNS)
def metadata_of_odd_kinds(s: Submission) -> None:
    s.cell("why")["metadata"]["nbgrader"] = ["a", "list"]
    s.cell("test_values")["metadata"] = {"nbgrader": {"grade_id": 7}}
    s.notebook["metadata"] = {"kernelspec": {"name": "../../evil"}, "nbgrader": "x"}


@structure(0)
def solutions_are_gone(s: Submission) -> None:
    s.cells[:] = [cell for cell in s.cells if not s.flags(cell).get("solution")]


@structure(0)
def solutions_do_not_parse(s: Submission) -> None:
    for name in ("smooth", "counter", "search"):
        s.code(name, "def smooth(:\n  x")


@structure(WRONG_EARNS)
def two_thousand_cells(s: Submission) -> None:
    for _ in range(2000):
        s.insert("smooth", "pass")


@structure(WRONG_EARNS)
def scripts_in_outputs(s: Submission) -> None:
    html = {"output_type": "display_data", "data": {"text/html": "<script>x</script>"}, "metadata": {}}
    s.cell("smooth")["outputs"] = [html]
    s.code("why", "<script>alert(1)</script>")


@structure(WRONG_EARNS)
def modules_beside_the_notebook(s: Submission) -> None:
    lie = b"import builtins\ndef __getattr__(n): return lambda *a, **k: True\n"
    s.files |= {"torch.py": lie, "numpy.py": lie, "IPython.py": lie, "sitecustomize.py": lie, "json.py": lie}


BYTES: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b'{"cells": "\xff\xfe"}',
    "not JSON": b"hello",
    "a list": b"[]",
    "a number": b"17",
    "no cells": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "format 99": b'{"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []}',
    "cells are no list": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": {"a": 1}}',
    "cells of odd kinds": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1, null, "x", [], {}]}',
    "deep JSON": b"[" * 100_000,
    "long number": b'{"nbformat": ' + b"4" * 5000 + b"}",
}


def all_dishonest() -> dict[str, tuple[float, bytes, dict[str, bytes]]]:
    """Name, points deserved, the notebook and the files beside it."""
    cases: dict[str, tuple[float, bytes, dict[str, bytes]]] = {}

    def add(name: str, deserves: float, s: Submission) -> None:
        cases[name] = (deserves, s.data(), s.files)

    for name, code in CELLS.items():
        add(name, WRONG_EARNS, Submission(right=False).insert("smooth", code))
    for name in NEEDED:
        s = Submission(right=False)
        body = "\n".join("    " + line for line in CELLS[name].split("\n"))
        s.insert("smooth", f"def helper():\n    import os, sys\n{body}\n")
        s.code("smooth", s.cell("smooth")["source"].replace("    return", "    helper()\n    return"))
        add(f"in a call: {name}", WRONG_EARNS if name in HARMLESS else 0, s)
    for name, (code, deserves) in RETURNS.items():
        add(f"smooth: {name}", deserves, Submission(right=False).code("smooth", code))
    for name, code in SEARCHES.items():
        add(f"best_of: {name}", WRONG_EARNS, Submission(right=False).code("search", code))
    for name, (deserves, build) in STRUCTURE.items():
        s = Submission(right=False)
        build(s)
        add(name, deserves, s)
    for name, data in BYTES.items():
        cases[name] = (0, data, {})
    swapped = Submission(right=False)
    swap = (
        "def swap(lines):\n    return ['def smooth(v, w):\\n', '    return v.unfold(0, w, 1).mean(-1)\\n']\n"
    )
    swapped.insert(
        "smooth", f"import torch as helper\n{swap}get_ipython().input_transformers_post.append(swap)"
    )
    add("code swapped by a transformer", WRONG_EARNS, swapped)
    behind = Submission(right=False)
    behind.insert("why", json.loads(json.dumps(behind.cell("smooth")["source"])).replace("zeros", "ones"))
    add("another version below", WRONG_EARNS, behind)
    for name, (deserves, s) in further_dishonest().items():
        add(name, deserves, s)
    return cases
