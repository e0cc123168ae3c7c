"""Holds the rules of the house, which are in CONTRIBUTING.md, by reading the code."""

import ast
import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "palette_jax"

# A part of the package, a folder or a file in it, may import what is on lower floors.
FLOORS = {
    "errors": 0,
    "types": 0,
    "atomic": 0,
    "interruptible": 0,
    "installation": 0,
    "torch_file": 1,
    "pictures": 1,
    "diffusion": 2,
    "models": 2,
    "data": 2,
    "parallel": 2,
    "processes": 2,
    "tasks": 2,
    "training": 3,
    "restoration": 3,
    "interop": 3,
    "config": 4,
    "configs": 5,
    "evaluation": 5,
    "planning": 5,
    "study": 6,
    "page": 6,
    "programs": 7,
    "cli": 8,
    "__main__": 9,
}
WITHOUT_TENSORFLOW = [
    "atomic",
    "interruptible",
    "installation",
    "errors",
    "types",
    "torch_file",
    "pictures",
    "diffusion",
    "models",
    "parallel",
    "processes",
    "tasks",
    "training",
    "restoration",
    "interop",
]
# What a part never imports: the network comes to the diffusion as a function, and what
# reads pictures must not touch the accelerator.
FORBIDDEN = {
    "diffusion": {"flax", "optax", "orbax"},
    "data": {"jax", "flax", "optax", "orbax"},
}
MOST_LINES = 300
OUTSIDE = {"benchmarks", "configs", "launch", "main", "tests"}


def test_every_part_of_the_package_has_a_floor() -> None:
    wrong = sorted({_part(name) for name in _modules()} - {"", *FLOORS})
    assert not wrong, _report("parts of the package that FLOORS lacks", wrong)


def test_imports_go_down_or_stay_within_the_part() -> None:
    wrong = []
    for module, imported in _imports():
        here, there = _part(module), _part(imported)
        if _top(imported) != PACKAGE or there not in FLOORS or there == here:
            continue
        # The package's own __init__ runs before any of its parts: it imports none.
        if not here or FLOORS[there] >= FLOORS[here]:
            wrong.append(f"{module} imports {imported}")
    assert not wrong, _report("imports that do not go down", wrong)


def test_the_package_imports_nothing_of_the_checkout_around_it() -> None:
    wrong = [f"{m} imports {i}" for m, i in _imports() if _top(i) in OUTSIDE]
    assert not wrong, _report("imports that an installed package lacks", wrong)


def test_the_config_stops_at_build() -> None:
    wrong = [
        module
        for module, imported in _imports()
        if _top(imported) == "ml_collections"
        and FLOORS.get(_part(module), 0) < FLOORS["config"]
    ]
    assert not wrong, _report("readers of the config below config/", wrong)


def test_no_part_imports_what_it_must_not_know() -> None:
    forbidden = {part: {"tensorflow"} for part in WITHOUT_TENSORFLOW}
    for part, names in FORBIDDEN.items():
        forbidden[part] = forbidden.get(part, set()) | names
    wrong = [
        f"{module} imports {imported}"
        for module, imported in _imports()
        if _top(imported) in forbidden.get(_part(module), ())
    ]
    assert not wrong, _report("forbidden imports", wrong)


def test_model_step_and_restoration_import_without_tensorflow() -> None:
    modules = [name for name in _modules() if _part(name) in WITHOUT_TENSORFLOW]
    # None in sys.modules makes an import fail as that of a missing package does.
    program = (
        "import importlib, sys\n"
        "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
    )
    command = [sys.executable, "-c", program, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_of_the_package_can_be_read_at_a_sitting() -> None:
    lines = {
        path: len(path.read_text("utf-8").splitlines()) for path in _modules().values()
    }
    wrong = [f"{path.name}: {n}" for path, n in lines.items() if n > MOST_LINES]
    assert not wrong, _report(f"files of more than {MOST_LINES} lines", wrong)


def test_no_file_is_named_after_nothing() -> None:
    paths = [
        p for top in (PACKAGE, "configs", "tests") for p in (ROOT / top).rglob("*")
    ]
    wrong = [str(p) for p in paths if p.stem in ("utils", "helpers", "common")]
    assert not wrong, _report("names that tell nothing", wrong)


def test_what_is_public_is_documented_and_annotated() -> None:
    wrong = []
    for name, node in _public():
        if not ast.get_docstring(node):
            wrong.append(f"{name} has no docstring")
        if isinstance(node, ast.ClassDef):
            continue
        bare = [a.arg for a in _arguments(node) if a.annotation is None]
        wrong += [f"{name}: {argument} has no type" for argument in bare]
        if node.returns is None:
            wrong.append(f"{name}: the result has no type")
    assert not wrong, _report("undocumented public names", wrong)


def test_optional_arguments_are_given_by_name() -> None:
    # Not of __call__: nn.remat tells static arguments by their place.
    wrong = [
        name
        for name, node in _public()
        if not isinstance(node, ast.ClassDef)
        and not node.name.startswith("__")
        and node.args.defaults
        and not name.endswith(".get_config")  # Its variant: the form of config files.
    ]
    assert not wrong, _report("functions that lack a `*` before their options", wrong)


def test_the_random_key_comes_first() -> None:
    wrong = []
    for name, node in _public():
        if isinstance(node, ast.ClassDef):
            continue
        names = [argument.arg for argument in _arguments(node)]
        wrong += [name for key in ("key", "keys") if key in names[1:]]
    assert not wrong, _report("functions whose key is not their first argument", wrong)


@pytest.mark.parametrize("part", ["diffusion", "models", "data"])
def test_the_walk_sees_the_package(part: str) -> None:
    modules = [name for name in _modules() if _part(name) == part]
    assert modules
    assert any(module in modules for module, _ in _imports())


@functools.cache
def _modules() -> dict[str, pathlib.Path]:
    """Returns the file of every module of the package."""
    modules = {}
    for path in sorted(ROOT.glob(f"{PACKAGE}/**/*.py")):
        if path.is_symlink():  # Of the configs, which other rules are for.
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


@functools.cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_modules()[name].read_text("utf-8"))


def _part(module: str) -> str:
    """Returns "models" of "palette_jax.models.unet", and "" of the package itself."""
    return f"{module}.".split(".")[1]


def _top(module: str) -> str:
    return module.split(".")[0]


def _imports() -> Iterator[tuple[str, str]]:
    """Yields (module, what it imports), wherever in the file the import stands."""
    for module, path in _modules().items():
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    up = node.level - (path.name == "__init__.py")
                    folder = module.split(".")[: -up or None]
                    base = ".".join([*folder, base]).rstrip(".")
                # `from package import name`: the name may be a module itself.
                yield from ((module, f"{base}.{alias.name}") for alias in node.names)


def _public() -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yields the public classes, functions and methods, and __call__."""
    for module in _modules():
        nodes = [(module, node) for node in _tree(module).body]
        for prefix, node in nodes:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            if node.name.startswith("_") and node.name != "__call__":
                continue
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                nodes += [(f"{prefix}.{node.name}", child) for child in node.body]


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    """Returns the arguments in their order, without self and cls."""
    args = function.args
    listed = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return [argument for argument in listed if argument.arg not in ("self", "cls")]


def _report(what: str, wrong: list[str]) -> str:
    return "\n  ".join([f"expected no {what}, got", *wrong])


@pytest.mark.parametrize("task", ["superres", "old_photo"])
def test_contributing_names_the_files_that_a_task_touches(task: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("## To add a task")[2].partition("## ")[0]
    paths = re.findall(r"`([\w/]+\.(?:py|md))`", section)
    listed = {path.replace("NAME", task) for path in paths}
    files = [ROOT / "README.md", *ROOT.glob("configs/*.py")]
    files += (ROOT / PACKAGE).rglob("*.*")
    word = re.compile(rf"\b{task}\b")
    touched = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.suffix in (".py", ".js", ".html", ".md")
        and word.search(path.read_text("utf-8"))
    }
    optional = {"palette_jax/data/degradations.py"}
    wrong = sorted(touched - listed) + sorted(listed - touched - optional)
    assert not wrong, _report(
        "files that CONTRIBUTING.md and the task differ in", wrong
    )
