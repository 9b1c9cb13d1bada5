"""The ConfigMap of a launch: the resolved space as it is read in pods, and the noise file where it names one."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from pathlib import Path
from typing import Any

import yaml

from search_spaces.spec import SearchSpace

SPACE_FILE = "space.yaml"
MOST_NOISE_BYTES = 512 * 1024
MOST_BYTES = 2**20 - 16 * 1024
"""Of a whole ConfigMap Kubernetes takes 1 MiB; the rest is for its metadata."""


def config_data(space: SearchSpace, folder: str) -> tuple[dict[str, Any], list[str]]:
    """The fields `data` and `binaryData` of the ConfigMap that is mounted at `folder`, and what is wrong with them.

    A noise file gets another path; runs keep their ids, of which its content is part and its path is none.
    """
    problems: list[str] = []
    binary = {}
    if space.noise.file is not None:
        content, problems = _noise_file(space.noise.file, space.noise.file_sha256)
        name = Path(space.noise.file).name
        binary = {name: base64.b64encode(content).decode()}
        noise = space.noise.model_copy(update={"file": posixpath.join(folder, name)})
        space = space.model_copy(update={"noise": noise})
    text = space_text(space)
    size = len(text.encode()) + sum(map(len, binary.values()))
    if size > MOST_BYTES and not problems:
        problems.append(
            f"the space and its noise file take {size:,} bytes; a ConfigMap holds {MOST_BYTES:,}. Shorten `cells`, or "
            "put the noise file into the image and name its path there"
        )
    return {"data": {SPACE_FILE: text}, **({"binaryData": binary} if binary else {})}, problems


def space_text(space: SearchSpace) -> str:
    """A resolved space as YAML, which reads as the same space."""
    return yaml.safe_dump(
        space.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=120
    )


def _noise_file(path: str, digest: str | None) -> tuple[bytes, list[str]]:
    """Its content, and why it cannot go into a ConfigMap."""
    name = Path(path).name
    problems = []
    if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", name) or name == SPACE_FILE or name in (".", ".."):
        problems.append(
            f"noise.file {path!r}: {name!r} cannot be the name of a file in a ConfigMap (A-Z a-z 0-9 - _ ., and not "
            f"{SPACE_FILE}): rename it"
        )
    try:
        size = Path(path).stat().st_size
        content = Path(path).read_bytes() if size <= MOST_NOISE_BYTES else b""
    except OSError as error:
        return b"", [*problems, f"noise.file {path!r} cannot be read: {error.strerror or error}"]
    if size > MOST_NOISE_BYTES:
        problems.append(
            f"noise.file {path!r} has {size:,} bytes; up to {MOST_NOISE_BYTES:,} travel with the job. Save the labels "
            "as integers of one byte or two (.npy, or compressed .npz)"
        )
    elif hashlib.sha256(content).hexdigest() != digest:
        problems.append(f"noise.file {path!r} has changed since the space was read: read it again")
    return content, problems
