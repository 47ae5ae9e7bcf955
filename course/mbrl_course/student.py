"""A student's notebook takes the place of the week's modules.

The `experiments` notebook of a week runs on what the student wrote in `build.ipynb`: `use_notebook("week03")`
executes the definitions of that notebook, runs its visible checks, and installs the result as
`mbrl_course.cem` and the week's other modules, so that whatever imports from there gets the student's code.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from mbrl_course.student_notebook import Finding, NotebookError, StudentNotebook, read_notebook
from mbrl_course.weeks import WEEKS, Week, find_week

PACKAGE = "mbrl_course"
_installed: dict[str, Path] = {}  # the weeks whose modules come from a notebook, and from which


class StudentCodeError(Exception):
    """A notebook can't stand in for the week's modules; the message says why and what to do."""

    def __init__(self, message: str, reason: str = "") -> None:
        """An error with a message of several lines, and what is wrong in one."""
        self.reason = reason or message.splitlines()[0]
        super().__init__(message)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone, since the traceback tells a student nothing."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Installed:
    """What `use_notebook` did; its text is one sentence."""

    week: Week
    path: Path | None  # None: the reference
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """For example "mbrl_course.mpc is now what build.ipynb defines."."""
        names = [f"{PACKAGE}.{module}" for module in self.week.modules]
        listed = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
        what = f"what {self.path.name} defines" if self.path else "the course's reference"
        return "\n".join([f"{listed} now {what}.", *self.notes])


def use_notebook(
    week: str | int,
    path: str | Path = "build.ipynb",
    *,
    reference: bool = False,
    use_mine: bool = False,
) -> Installed:
    """Installs what a build notebook defines as the modules of `week`.

    Definitions are executed (imports, functions, classes, constants), nothing else of the student's cells;
    then the visible checks of each exercise are run. A bonus exercise may be missing.

    Modules of the package that had imported the replaced ones are forgotten, so that the next import of
    them uses the new ones; names that the calling notebook holds already are listed in the result.

    Args:
        week: such as "week03" or 3.
        path: the notebook, from the current folder.
        reference: take the course's own modules instead, where they are installed.
        use_mine: take the modules of all earlier weeks from the student's notebooks as well, which lie at
            ../weekNN/ beside the folder of `path`.

    Returns:
        A summary, whose text is one sentence.

    Raises:
        UnknownWeekError: no such week.
        StudentCodeError: a function is missing, not written yet, or fails its check; or there is no notebook
            or no reference. The week's modules are what they were before.
    """
    found = find_week(week)
    notes: list[str] = []
    if use_mine:
        earlier = [other.id for other in WEEKS if other.number < found.number]
        notes = [str(item) for item in _use_earlier(earlier, Path(path).resolve().parent.parent)]
    result = _use_reference(found) if reference else _use_student(found, Path(path))
    return Installed(result.week, result.path, (*notes, *result.notes))


def use_mine(weeks: Iterable[str | int], folder: str | Path = "..") -> list[Installed]:
    """Installs the student's own modules of earlier weeks, from `folder`/weekNN/build.ipynb each.

    Where a notebook is missing or fails a check, the reference of that week is used, and the result says so.

    Raises:
        UnknownWeekError: no such week.
        StudentCodeError: a notebook can't be used, and there is no reference of its week.
    """
    return _use_earlier(weeks, Path(folder))


def _use_earlier(weeks: Iterable[str | int], folder: Path) -> list[Installed]:
    results = []
    for week in sorted({find_week(name) for name in weeks}, key=lambda week: week.number):
        path = folder / week.id / "build.ipynb"
        try:
            results.append(_use_student(week, path))
        except StudentCodeError as error:
            notes = _use_reference(week).notes
            results.append(Installed(week, None, (f"  Your own is not used: {error.reason}", *notes)))
    return results


def _use_student(week: Week, path: Path) -> Installed:
    notebook, module = _define(week, path)
    with _standing_in(module):
        notebook.check()
    wanted = [finding for finding in notebook.findings if not finding.bonus]
    if wanted:
        reason = "; ".join(f"{finding.where}: {finding.message.splitlines()[0]}" for finding in wanted)
        raise StudentCodeError(_explain(week, path, wanted), reason)
    notes = [f"Bonus, {finding.where}: {finding.message}" for finding in notebook.findings]
    notes += _install(week, path, module)
    return Installed(week, path, tuple(notes))


def _define(week: Week, path: Path) -> tuple[StudentNotebook, ModuleType]:
    """Executes a notebook's definitions in a module that is not installed yet."""
    name = f"{PACKAGE}.{week.modules[0]}"
    try:
        notebook = read_notebook(path, name)
    except NotebookError as error:
        raise StudentCodeError(f"{error}.\n{_advice(week, path)}") from None
    module = ModuleType(name)
    module.__dict__.update(notebook.namespace)
    notebook.namespace = module.__dict__
    with _standing_in(module):
        notebook.define()
    return notebook, module


@contextlib.contextmanager
def _standing_in(module: ModuleType) -> Iterator[None]:
    """Lets `module` be found under its name for a while: dataclasses look there for their annotations."""
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before


def _install(week: Week, path: Path, module: ModuleType) -> list[str]:
    """Puts a module into place under the names of the week's modules; says which old names live on."""
    names = [f"{PACKAGE}.{name}" for name in week.modules]
    notes = _forget(names)
    for name in names:
        copy = module if name == module.__name__ else ModuleType(name)
        copy.__dict__.update({key: value for key, value in vars(module).items() if key != "__name__"})
        copy.__spec__ = ModuleSpec(name, None, origin=str(path))
        _place(name, copy)
    _installed[week.id] = path.resolve()
    _redefine_after(week)
    return notes


def _use_reference(week: Week) -> Installed:
    package = sys.modules[PACKAGE]
    names = [f"{PACKAGE}.{module}" for module in week.modules]
    missing = [name for name in names if PathFinder.find_spec(name, package.__path__) is None]
    if missing:
        raise StudentCodeError(
            f"the reference of {week.id} is not installed here ({', '.join(missing)}): it comes once\n"
            f'the week is handed in. Use your own: use_notebook("{week.id}")'
        )
    notes: list[str] = []
    if _installed.pop(week.id, None):
        notes = _forget(names)
        for name in names:
            _remove(name)
        for name in names:
            importlib.import_module(name)
        _redefine_after(week)
    return Installed(week, None, tuple(notes))


def _redefine_after(week: Week) -> None:
    """Makes installed notebooks of later weeks anew: they hold names of the modules that were replaced."""
    for later in WEEKS:
        if later.number > week.number and later.id in _installed:
            path = _installed[later.id]
            _install(later, path, _define(later, path)[1])


def _forget(names: Sequence[str]) -> list[str]:
    """Drops all loaded modules of the package that depend on `names`, and says what of them is still held."""
    gone = {*names, *_dependents(set(names))}
    held = _held_by_main(gone)
    for name in gone - set(names):
        _remove(name)
    if not held:
        return []
    return [
        f"Run the cells again that import {', '.join(held)}: these names still mean what they did before."
    ]


def _dependents(names: set[str]) -> set[str]:
    """Loaded modules of the package that import one of `names`, directly or through others."""
    imports = {
        name: _imports(module)
        for name, module in list(sys.modules.items())
        if name.startswith(f"{PACKAGE}.") and name not in names and name != __name__
    }
    found: set[str] = set()
    size = -1
    while size != len(found):
        size = len(found)
        found |= {name for name, imported in imports.items() if imported & (names | found)}
    students = {f"{PACKAGE}.{module}" for week in WEEKS if week.id in _installed for module in week.modules}
    return found - students  # those are made anew


def _imports(module: ModuleType) -> set[str]:
    """The modules that a loaded module imported when it was loaded.

    Imports inside functions look the module up each time, and so find the new one by themselves.
    """
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return set()
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(Path(file).read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        for_checkers = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not for_checkers and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = (
                    module.__name__ if file.endswith("__init__.py") else module.__name__.rpartition(".")[0]
                )
                parents = parent.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def _held_by_main(gone: set[str]) -> list[str]:
    """Names of the running notebook that stand for one of these modules, or for something defined there."""
    held = []
    for name, value in vars(sys.modules.get("__main__", ModuleType("__main__"))).items():
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if home in gone and (isinstance(value, ModuleType) or callable(value)) and not name.startswith("_"):
            held.append(name)
    return sorted(held)


def _place(name: str, module: ModuleType) -> None:
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)


def _remove(name: str) -> None:
    for other in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        parent, _, child = other.rpartition(".")
        sys.modules.pop(other, None)
        if parent in sys.modules and hasattr(sys.modules[parent], child):
            delattr(sys.modules[parent], child)


def _explain(week: Week, path: Path, findings: list[Finding]) -> str:
    modules = " and ".join(f"{PACKAGE}.{module}" for module in week.modules)
    lines = [f"{path} can't stand in for {modules} yet:", ""]
    for finding in findings:
        lines += [f"  {finding.where}", *(f"      {line}" for line in finding.message.splitlines())]
    return "\n".join([*lines, "", _advice(week, path)])


def _advice(week: Week, path: Path) -> str:
    return (
        f"Open {path}, finish what is named here until the checks below it pass, save the notebook, and run\n"
        "this cell again. Where the course's own solutions are installed, this takes them instead:\n"
        f'    use_notebook("{week.id}", reference=True)'
    )
