"""The shape of the house: imports go one way, the core stays small, light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "search_spaces": {"search_spaces"},
    "workers": {"workers", "search_spaces"},
    "orchestrator": {"orchestrator", "workers", "search_spaces"},
}
FORBIDDEN = {
    "search_spaces": {"torch", "ray", "ffcv", "wandb", "click", "polars", "pyarrow"},
    "workers": {"ray", "wandb", "click", "polars"},
    "orchestrator": set(),
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


RENDERED = (
    *("--image", "bo-sweep:1", "--cluster-set", "unpinned_image=true", "--cluster-set", "results.claim=results"),
)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_go_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        names = imported(path)
        assert names & set(ALLOWED) <= ALLOWED[package], path
        assert not names & FORBIDDEN[package], path
        assert not names & {"tests", "benchmarks"}, path


def test_only_one_module_imports_ffcv() -> None:
    importers = [
        path.name for package in ALLOWED for path in (ROOT / package).rglob("*.py") if "ffcv" in imported(path)
    ]
    assert importers == ["quiet_ffcv.py"]


@pytest.mark.parametrize(
    ("arguments", "too_heavy"),
    [
        (["--help"], {"torch", "ray", "numpy", "polars", "pyarrow", "matplotlib", "pydantic", "rich"}),
        (["spaces", "list"], {"torch", "ray", "polars", "matplotlib"}),
        (["plan", "imagenet-grid"], {"torch", "ray", "matplotlib"}),
        (["plan", "gmm-grid", "--json"], {"torch", "ray", "matplotlib"}),
        (["status", "nothing"], {"torch", "ray", "matplotlib"}),
        (["phase", "nothing"], {"torch", "ray"}),
        (["slices", "nothing"], {"torch", "ray", "matplotlib", "sklearn"}),
        (["compare", "nothing", "else"], {"torch", "ray", "matplotlib", "sklearn"}),
        (["k8s", "render", "digits-grid", *RENDERED], {"torch", "ray", "matplotlib", "kubernetes", "polars"}),
        (["k8s", "status", "--context", "none"], {"torch", "ray", "matplotlib", "polars"}),
        (["fetch", "nothing", "--to", "x"], {"torch", "ray", "matplotlib", "kubernetes"}),
        (["wandb", "dashboard", "nothing", "--dry-run"], {"torch", "ray", "matplotlib", "wandb"}),
        (["report", "nothing"], {"torch", "ray", "matplotlib", "sklearn", "plotly"}),
    ],
)
def test_light_commands_import_nothing_heavy(arguments: list[str], too_heavy: set[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.splitlines()[-1].split()[1:])
    assert not loaded & too_heavy
