"""Serve until standard input ends; prints the address. `python -m tests.wandb_server --port 8080`."""

from __future__ import annotations

import argparse
import sys

from tests.wandb_server import FakeWandb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    with FakeWandb(parser.parse_args().port) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
