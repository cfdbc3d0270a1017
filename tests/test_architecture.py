"""What the contract in pyproject.toml (make check) cannot say: files are short, what is public is explained."""

import ast
import subprocess
import sys
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
