"""`python -m benchmarks.gpu`: check and measure one GPU, then print one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu.verdicts import Line

PARTS = ("checks", "speeds", "packs")
EXAMPLE = "Example:  python -m benchmarks.gpu --cores 16 4 --out benchmarks/gpu-h100.md"


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0 where every check passed, 1 where one did not; goals of speed are reported, not enforced."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, epilog=EXAMPLE)
    available = len(os.sched_getaffinity(0))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to see that everything runs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round: its figures prove nothing")
    parser.add_argument(
        "--cores", type=int, nargs="+", default=[available], help="CPU cores to feed from, each measured (default: all)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of it (default: all)")
    parser.add_argument("--out", type=Path, help="write the table there too, as Markdown")
    options = parser.parse_args(arguments)
    if wrong := [count for count in options.cores if not 1 <= count <= available]:
        parser.error(f"--cores {wrong[0]}: this machine lends 1 to {available} to a process")
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"--out {options.out}: its folder does not exist; make it, or choose another")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not repeatable; read when CUDA starts

    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: use --device cpu --quick to see that everything runs")

    from benchmarks.gpu import pack_checks, packs, parity, precision, resuming, sharing, speed
    from benchmarks.gpu.data import prepare_all
    from benchmarks.gpu.sizes import FULL, QUICK
    from benchmarks.gpu.verdicts import markdown

    device, sizes = torch.device(options.device), QUICK if options.quick else FULL
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="bo-sweep-bench-") as folder:
        if "checks" in options.only:
            for module in (parity, resuming, precision, pack_checks):
                lines += noted(module.check(device, sizes))
        checked = all(line.met is not False for line in lines)
        if "packs" in options.only:
            lines += noted(packs.measure(device, sizes, max(options.cores)))
        if "speeds" in options.only or "packs" in options.only:
            prepare_all(sizes, Path(folder), max(options.cores))
        if "packs" in options.only:
            lines += noted(sharing.measure(device, sizes, Path(folder), options.cores))
        if "speeds" in options.only:
            lines += noted(speed.measure(device, sizes, Path(folder), options.cores))
    table = markdown(title(device, options.quick), lines)
    if options.out:
        options.out.write_text(table, encoding="utf-8")
    print(table)
    sys.exit(0 if checked else 1)


def noted(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines, each told on stderr as it comes: the machine may be taken away before the table."""
    for line in lines:
        print(f"{line.what}: {line.found} {line.verdict}".rstrip(), file=sys.stderr, flush=True)
        yield line


def title(device: torch.device, quick: bool) -> str:
    """Date, device and versions; nothing that names the machine or its user."""
    import torch

    from benchmarks.gpu.project import ffcv_version

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    facts = [
        time.strftime("%Y-%m-%d"),
        name,
        f"{len(os.sched_getaffinity(0))} CPU cores",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"FFCV {ffcv_version()}",
    ]
    heading = "A quick look: tiny sizes, proves nothing" if quick else "One GPU, checked and measured"
    return f"# {heading}\n\n{', '.join(facts)}. `n` counts rounds, in which all ways of a case take turns."


if __name__ == "__main__":
    main()
