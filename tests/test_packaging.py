"""The files that set the course up agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def constraints() -> dict[str, str]:
    """Name (normalised) to version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line.strip() and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[str]:
    extra = [name for names in project()["optional-dependencies"].values() for name in names]
    return [*project()["dependencies"], *extra]


def split(requirement: str) -> tuple[str, list[tuple[str, str]]]:
    """ "mujoco>=3.3,<3.9" -> ("mujoco", [(">=", "3.3"), ("<", "3.9")])."""
    match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(.*)", requirement)
    assert match, requirement
    bounds = re.findall(r"(>=|<=|==|<|>)\s*([0-9.]+)", match[2])
    return normal(match[1]), bounds


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:4])


@pytest.mark.parametrize("requirement", requirements())
def test_each_requirement_is_pinned_to_a_version_that_it_allows(requirement: str) -> None:
    name, bounds = split(requirement)
    pinned = version(constraints()[name])
    for sign, bound in bounds:
        limit = version(bound)
        fits = {">=": pinned >= limit, "<=": pinned <= limit, "<": pinned < limit, ">": pinned > limit}
        assert fits[sign], f"constraints.txt pins {name} to {pinned}, pyproject.toml says {sign}{bound}"


def test_constraints_are_versions_only() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9_.+!-]*", line), f"{line!r} is no plain pin"


def test_conda_environment_installs_what_pyproject_says() -> None:
    import yaml

    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content["name"] == project()["name"]
    plain = [item for item in content["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in content["dependencies"] if isinstance(item, dict)]
    assert pip == ["-c constraints.txt", "-e .[dev]"], "packages are listed in pyproject.toml alone"
    extras = project()["optional-dependencies"]
    assert set(extras) == {"cluster", "dev", "tune"}
    assert {*extras["cluster"], *extras["tune"]} <= set(extras["dev"]), "what is tested is installed"
    python = next(item for item in plain if item.startswith("python="))
    _, ((_, needed),) = split(f"python{project()['requires-python']}")
    assert version(python) >= version(needed)
    assert "pip" in plain


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", text, flags=re.MULTILINE)
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in targets:
        assert re.search(rf"^  {target}\s+\S", shown, flags=re.MULTILINE), f"`make help` leaves out {target}"
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert phony and set(phony[1].split()) == set(targets)


def test_continuous_integration_calls_make_test() -> None:
    import yaml

    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("make test")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, ".ci/run is executable"
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
        assert "make test" in commands


def test_commands_exist() -> None:
    assert project()["scripts"] == {"mbrl-course": "mbrl_course.cli:main"}
