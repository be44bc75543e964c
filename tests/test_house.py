"""What holds everywhere: lazy extras, short files, docstrings, plain words, and pins that agree with the ranges."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("inas_deploy", "training", "search", "targets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60

# Absolute paths of one machine, and the places packages come from, say nothing to a reader elsewhere.
OUT_OF_PLACE = re.compile(r"(?<![\w.])/(?:work|farm|root|Users)/\w|(?:pypi|npm)[\w.-]*\.(?:org|com|net)", re.IGNORECASE)

IMPORT_ALL = """
import importlib, json, sys

allowed, modules = json.loads(sys.stdin.read())


class OnlyBase:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        stdlib = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if allowed is not None and top not in allowed and not stdlib:
            raise ModuleNotFoundError(f"No module named {name!r} (not a base dependency)", name=name)


sys.meta_path.insert(0, OnlyBase())
failed = {}
for module in modules:
    try:
        importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        failed[module] = str(error)
print(json.dumps([failed, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def module_names(packages: tuple[str, ...]) -> list[str]:
    paths = [path.relative_to(ROOT) for path in SOURCES if path.relative_to(ROOT).parts[0] in packages]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]


def base_modules() -> set[str]:
    """Top-level modules of the base dependencies and of what those need."""
    todo, seen = [Requirement(line) for line in PROJECT["dependencies"]], set()
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name in seen:
            continue
        seen.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(needed)
    owners = importlib.metadata.packages_distributions()
    return {module for module, names in owners.items() if {canonicalize_name(n) for n in names} & seen}


def import_all(packages: tuple[str, ...], allowed: list[str] | None, folder: Path) -> tuple[dict[str, str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        input=json.dumps([allowed, module_names(packages)]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed, loaded = json.loads(done.stdout.splitlines()[-1])
    return failed, loaded


def test_the_walk_finds_the_four_floors() -> None:
    names = module_names(PACKAGES)
    assert {"inas_deploy.cli", "targets.records", "search.spaces", "training"} <= set(names)


def test_every_module_imports_with_the_base_dependencies_only(tmp_path: Path) -> None:
    failed, loaded = import_all(PACKAGES, sorted(base_modules() | set(PACKAGES)), tmp_path)
    assert failed == {}
    assert "numpy" in loaded  # the walk really imported something


def test_the_import_hook_catches_an_extra(tmp_path: Path) -> None:
    allowed = sorted((base_modules() | set(PACKAGES)) - {"pydantic"})
    failed, _ = import_all(("targets",), allowed, tmp_path)
    assert "targets.records" in failed


def test_targets_never_loads_torch_even_where_it_is_installed(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed, so nothing could load it")
    failed, loaded = import_all(("targets",), None, tmp_path)
    assert failed == {}
    assert "targets" in loaded
    assert "torch" not in loaded


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MAX_LINES:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def public_nodes(tree: ast.Module) -> list[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """The module, its public functions and classes, and the public methods of those."""
    found: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
                found += [method for method in methods if not method.name.startswith("_")]
    return found


def test_every_public_name_has_a_docstring() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', '')}"
        for path in SOURCES
        for node in public_nodes(ast.parse(path.read_text(encoding="utf-8")))
        if ast.get_docstring(node) is None
    ]
    assert bare == []


def test_no_text_names_one_machine() -> None:
    folders = [ROOT / name for name in (*PACKAGES, "benchmarks", "tests", "docs", ".ci", ".github")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in ROOT.glob("*") if path.suffix in {".md", ".toml", ".txt"} or path.name == "Makefile"]
    found = []
    for path in files:
        if (
            path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".j2", ".html", ".json", ""}
            and "__pycache__" not in path.parts
        ):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if OUT_OF_PLACE.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_pins_lie_within_the_ranges_of_pyproject() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra, needs in PROJECT["optional-dependencies"].items():
        if extra != "tensorrt":  # comes from the user's own driver stack, so its version is not ours to pin
            wanted += [Requirement(line) for line in needs]
    wanted = [need for need in wanted if canonicalize_name(need.name) != canonicalize_name(PROJECT["name"])]
    assert {canonicalize_name(need.name) for need in wanted} <= pins.keys()
    assert [str(need) for need in wanted if not need.specifier.contains(pins[canonicalize_name(need.name)])] == []
    assert pins["torch"] == "2.13.0"


@pytest.mark.parametrize("package", ["targets", "search", "training"])
@pytest.mark.parametrize("form", ["module", "package"])
def test_a_shadowed_package_is_one_line_and_exit_2(tmp_path: Path, package: str, form: str) -> None:
    shadow = tmp_path / f"{package}.py" if form == "module" else tmp_path / package / "__init__.py"
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("raise SystemExit('the shadow ran')\n")
    done = start_in(tmp_path, "-m", "inas_deploy.bench", "--help")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(shadow if form == "module" else shadow.parent) in done.stderr
    assert repr(package) in done.stderr


def test_a_shadowed_package_is_an_import_error_for_a_program(tmp_path: Path) -> None:
    (tmp_path / "targets.py").write_text("")
    program = (
        "import sys\ntry:\n    import inas_deploy\nexcept ImportError as error:\n    sys.exit(f'{error.name}: {error}')"
    )
    done = start_in(tmp_path, "-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith(f"targets: {tmp_path / 'targets.py'} shadows")


def test_a_folder_of_data_is_no_shadow_and_siblings_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    program = "import sys, inas_deploy; print(sorted({'targets', 'search', 'training', 'numpy'} & set(sys.modules)))"
    done = start_in(tmp_path, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def start_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
