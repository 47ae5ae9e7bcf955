"""Where the course's files are, and how a problem in one of them is reported."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mbrl_course.weeks import WEEKS, Week, find_week

PACKAGE = "mbrl_course"
NOTEBOOK_NAMES = (
    "build",
    "experiments",
)  # in this order: the experiments run on the build notebook beside them


@dataclass(frozen=True)
class Problem:
    """Something that has to be put right in a file; `line` counts from 1, 0 stands for the whole file."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        """The problem as compilers write it: "file:line: message"."""
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.message}"


class AuthoringError(Exception):
    """The notebooks can't be built; `problems` lists everything that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """An error for these problems, its text one line for each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Course:
    """A checkout of the course: `root` holds course/, solutions/ and weeks/."""

    root: Path

    @classmethod
    def here(cls) -> Course:
        """The checkout that this file lies in, or else the one around the current directory.

        Raises:
            FileNotFoundError: neither is one (a package installed as a wheel has no sources).
        """
        candidates = [Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents]
        for root in candidates:
            if (root / "course" / "notebooks").is_dir():
                return cls(root)
        raise FileNotFoundError(
            f"{Path.cwd()} is not inside a checkout of the course: run this where course/notebooks/ is"
        )

    @property
    def package_dir(self) -> Path:
        """The folder of `mbrl_course`."""
        return self.root / "course" / PACKAGE

    def source_dir(self, week: Week) -> Path:
        """Where the week's notebooks are written."""
        return self.root / "course" / "notebooks" / week.source

    def sources(self, week: Week) -> list[Path]:
        """The week's notebook sources, those that exist, `build` first."""
        paths = (self.source_dir(week) / f"{name}.py" for name in NOTEBOOK_NAMES)
        return [path for path in paths if path.is_file()]

    def solutions_dir(self, week: Week) -> Path:
        """Where the week's nbgrader source notebooks are generated."""
        return self.root / "solutions" / week.id

    def weeks_dir(self, week: Week) -> Path:
        """Where the week's student notebooks are generated."""
        return self.root / "weeks" / week.id

    def select(self, names: Iterable[str | int] | str | int | None) -> list[Week]:
        """The weeks called `names`, or all weeks that have sources.

        Raises:
            UnknownWeekError: a name fits no week.
            AuthoringError: a named week has no sources yet.
        """
        if names is None:
            return [week for week in WEEKS if self.sources(week)]
        if isinstance(names, str | int):
            names = [names]
        weeks = sorted({find_week(name) for name in names}, key=lambda week: week.number)
        missing = [week for week in weeks if not self.sources(week)]
        if missing:
            raise AuthoringError(
                Problem(
                    self.show(self.source_dir(week)), 0, f"{week.id} has no build.py and no experiments.py"
                )
                for week in missing
            )
        return weeks

    def module_path(self, module: str) -> Path | None:
        """The file of `mbrl_course.<module>` ("cem", "envs", "envs.task"), or None where there is none."""
        base = self.package_dir.joinpath(*module.split(".")) if module else self.package_dir
        for path in (base.with_suffix(".py") if module else None, base / "__init__.py"):
            if path is not None and path.is_file():
                return path
        return None

    def imports_closure(self, modules: Iterable[str]) -> set[str]:
        """`modules` and all modules of the package that they import, directly or through others."""
        found: set[str] = set()
        waiting = list(modules)
        while waiting:
            module = waiting.pop()
            path = self.module_path(module)
            if module in found or path is None:
                continue
            found.add(module)
            parents = [module.rpartition(".")[0]] if "." in module else []
            tree = parse_file(path)
            waiting += parents + list(package_imports(tree, module, path.name == "__init__.py"))
        return found

    def show(self, path: Path) -> Path:
        """`path` as it is shown to people: relative to the checkout where it lies inside."""
        return path.relative_to(self.root) if path.is_relative_to(self.root) else path


def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a Python file; kept until the file changes."""
    return _parse_text(path.read_text(encoding="utf-8"), str(path))


@lru_cache(maxsize=256)
def _parse_text(text: str, filename: str) -> ast.Module:
    return ast.parse(text, filename)


def package_imports(tree: ast.AST, module: str | None = None, is_package: bool = False) -> dict[str, int]:
    """Modules of `mbrl_course` that code imports ("cem", "envs.task"), with the first line that does.

    `from mbrl_course import cem` and `from mbrl_course.envs import task` count for the modules too; a name
    that is no module is harmless, since nobody asks for it.

    Args:
        tree: the code.
        module: the module it is the code of, for relative imports; None in a notebook.
        is_package: whether that module is a package's `__init__`.
    """
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = f"{PACKAGE}.{module or ''}".rstrip(".").split(".")
                keep = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join([*parts[:keep], *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.startswith(f"{PACKAGE}."):
                parts = name.split(".")[1:]
                for end in range(1, len(parts) + 1):
                    found.setdefault(".".join(parts[:end]), getattr(node, "lineno", 0))
    return found
