"""The house stays as it was designed: imports go one way, modules are short, what is public is explained."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
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

# Imports go from right to left; what is not named here is only forbidden to go in circles.
ORDER = [
    {"fields", "config", "rng", "images"},
    {"schedule", "layers", "losses", "data", "metrics"},
    {"networks"},
    {"state"},
    {"distributed", "step", "training", "generate"},
    {"evaluate"},
    {"experiment"},
    {"ablation", "mode_recovery", "cifar10"},
    {"commands"},
    {"cli"},
]


def imports(name: str) -> set[str]:
    """Modules of progan that a module imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] == "progan":
                module = ".".join(parts[1:])
                while module not in FILES:  # a name inside a module
                    module = module.rpartition(".")[0]
                found.add(module)
    return found - {name}


def rank(name: str) -> int | None:
    head = name.split(".")[0]
    return next((i for i, group in enumerate(ORDER) if head in group), None)


def test_imports_go_one_way() -> None:
    for name in FILES:
        for other in imports(name):
            ours, theirs = rank(name), rank(other)
            assert ours is None or theirs is None or theirs <= ours, f"{name} imports {other}"


def test_imports_never_go_in_circles() -> None:
    graph = {name: imports(name) - {""} for name in FILES if name}  # progan itself is the public API over them all
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", ["networks", "losses", "schedule", "metrics"])
def test_networks_losses_schedule_and_metrics_know_nothing_of_each_other(name: str) -> None:
    kept_apart = {"networks", "losses", "schedule", "metrics"}
    seen: set[str] = set()
    todo = [module for module in FILES if module.split(".")[0] == name]
    while todo:  # nor through others
        module = todo.pop()
        seen.add(module.split(".")[0])
        todo += imports(module) - {""}
    assert not seen & (kept_apart - {name})


def test_nobody_imports_the_command_line() -> None:
    assert [name for name in FILES if "cli" in imports(name)] == ["__main__"]


@pytest.mark.parametrize("name", FILES)
def test_a_module_has_at_most_300_lines(name: str) -> None:
    assert len(FILES[name].read_text().splitlines()) <= 300


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
        ("progan.data.tree", {"torch", "tyro", "rich", "progan.config"}),  # so that worker processes start soon
    ],
)
def test_what_must_start_quickly_imports_little(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(found.stdout.split())
