"""What the contract in pyproject.toml (make check) cannot say: files are short, what is public is explained."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import progan

ROOT = Path(progan.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_a_module_is_neither_long_nor_a_crumb(name: str) -> None:
    path = FILES[name]
    lines = len(path.read_text().splitlines())
    assert lines <= 300
    assert lines >= 20 or path.name == "__init__.py"


@pytest.mark.parametrize("name", FILES)
def test_what_is_public_has_a_docstring(name: str) -> None:
    public = [
        node.name
        for node in TREES[name].body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not public
    assert not TREES[name].body or ast.get_docstring(TREES[name])


def test_the_public_names_are_there() -> None:
    import progan.training  # must not take the place of a name of the package

    assert {"Generator", "TrainConfig", "train", "load_generator"} < set(progan.__all__)
    for name in progan.__all__:
        assert not isinstance(getattr(progan, name), ModuleType), name
        assert getattr(progan, name) is getattr(progan, name)
    with pytest.raises(AttributeError, match="nothing"):
        progan.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("progan.cli", {"torch", "matplotlib", "scipy"}),  # so that --help is quick
        # so that worker processes start soon
        ("progan.data.pictures.tree", {"torch", "tyro", "rich", "progan.config"}),
    ],
)
def test_what_must_start_quickly_imports_little(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(found.stdout.split())


def test_the_picture_of_the_floors_is_that_of_the_contract() -> None:
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    floors = settings["contracts"][0]["layers"][1:]  # __main__ only calls the command line
    picture = (ROOT.parent / "docs" / "architecture.md").read_text().split("```mermaid")[1].split("```")[0]
    labels = re.findall(r'\["([^"]+)"\]', picture)  # from the top down
    place = 0
    for floor in floors:
        for room in re.split(r"[|\s]+", floor):
            name = f"{room}/" if (ROOT / room).is_dir() else f"{room}.py"
            found = next(i for i, label in enumerate(labels) if name in label)
            assert found >= place, f"{room} stands too high"
            place = found if room == floor else place
