"""What is sent to a Ray cluster for one sweep: the command, the search space, the code, and the hash over all of it."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.entry_point import LaunchRequest
from orchestrator.ray_environment import JOB_STOP_SECONDS, NODE_ENVIRONMENT, REPLACE_SHELL
from orchestrator.ray_jobs.jobs import OURS
from orchestrator.ray_jobs.wheel import Code, running_code, write_wheel
from orchestrator.storage import open_storage
from search_spaces.spec import SearchSpace

SPACE_FILE = "space.yaml"


@dataclass(frozen=True)
class Parcel:
    """All that makes a Ray job.

    Attributes:
        space: name of the search space.
        sweep: its name in storage.
        storage: as the nodes see it.
        entrypoint: the command, as a line for a shell.
        files: in the job's working folder: the search space, and a label file if it names one.
        code: of bo-sweep.
    """

    space: str
    sweep: str
    storage: str
    entrypoint: str
    files: tuple[tuple[str, bytes], ...]
    code: Code

    @property
    def space_digest(self) -> str:
        """8 hex digits over the search space and its label file."""
        return _digest(*(part for name, content in self.files for part in (name.encode(), content)))

    @property
    def digest(self) -> str:
        """8 hex digits over everything."""
        return _digest(self.sweep.encode(), self.entrypoint.encode(), *map(str.encode, self.parts.values()))

    @property
    def parts(self) -> dict[str, str]:
        """What two jobs of one sweep can differ in besides their commands, as it stands in a job's metadata."""
        return {"space-digest": self.space_digest, "code-digest": self.code.digest}

    @property
    def job_id(self) -> str:
        """Of the first job that carries it out: `<sweep>-<digest>`."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.sweep)[:80]}-{self.digest}"

    @property
    def metadata(self) -> dict[str, str]:
        """By which the job is found again, and told from others."""
        return {
            OURS: self.code.version,
            "space": self.space,
            "sweep": self.sweep,
            "storage": self.storage,
            "digest": self.digest,
            **self.parts,
        }

    def runtime_environment(self, folder: Path) -> dict[str, Any]:
        """Write what is shipped into `folder`; returns the `runtime_env` that brings it to the driver and all workers.

        The wheel with the search space beside it is the job's working folder: Ray unpacks it on every node. As one of
        `py_modules` it would be installed with pip there, which not every node has, which tries to fetch torch and all
        the rest anew, and which fails where a node comes back to its session.
        """
        archive = write_wheel(folder, self.code, self.files).rename(folder / "bo-sweep.zip")
        return {
            "working_dir": str(archive),
            "env_vars": {
                "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_SECONDS),  # read by what starts and stops the driver
                "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the working folder, where the label file is
                **{name: value for name, value in NODE_ENVIRONMENT.items() if name.startswith("MALLOC_")},
            },
        }


def pack(request: LaunchRequest, storage: str, data_folder: str | None, code: Code | None = None) -> Parcel:
    """Make the parcel; nothing is contacted.

    Args:
        request: what to launch.
        storage: where sweeps are, as all nodes of the cluster see it.
        data_folder: with the betons, as the nodes see it; None for their default.
        code: of bo-sweep; that which runs by default.

    Raises:
        ValueError: storage or data that nodes would not find, or a label file that is not there; all at once.
    """
    storage, storage_problems = _on_nodes(storage)
    problems = [*storage_problems, *_data_problems(data_folder)]
    space, files = _files(request.space, problems)
    if problems:
        raise ValueError("\n".join(problems))
    arguments = request.arguments(SPACE_FILE, storage=storage, data_folder=data_folder, address="auto")
    command = shlex.join([REPLACE_SHELL, "python", "-m", "orchestrator.cli", *arguments])
    return Parcel(
        space.name, request.sweep, storage, command, ((SPACE_FILE, _yaml(space)), *files), code or running_code()
    )


def _on_nodes(storage: str) -> tuple[str, list[str]]:
    """Storage as nodes open it, and what stands against that."""
    try:
        folder = open_storage(storage).local_path()
    except ValueError as error:
        return storage, [str(error)]
    if folder is None:
        return storage, []
    if "://" in storage or Path(storage).is_absolute():
        return str(folder), []
    return storage, [
        f"--storage {storage!r} is a folder of this machine: the sweep runs on the cluster, whose nodes all have to "
        "reach it. Give s3://bucket/prefix, gs://bucket/prefix, or the absolute path of a file system that all nodes "
        "share"
    ]


def _data_problems(data_folder: str | None) -> list[str]:
    if data_folder is None or Path(data_folder).is_absolute():
        return []
    return [
        f"--data {data_folder!r} is relative: give the absolute path that the betons have on the cluster's nodes, or "
        "leave it out for $BO_SWEEP_DATA there"
    ]


def _files(space: SearchSpace, problems: list[str]) -> tuple[SearchSpace, list[tuple[str, bytes]]]:
    """The space as it reads in the working folder, and the label file that it names; paths are no part of a run."""
    if space.noise.file is None:
        return space, []
    path = Path(space.noise.file)
    name = f"labels{path.suffix}"
    try:
        content = path.read_bytes()
    except OSError as error:
        problems.append(f"noise.file {str(path)!r} cannot be read: {error.strerror}. It is sent with the job")
        return space, []
    if hashlib.sha256(content).hexdigest() != space.noise.file_sha256:
        problems.append(f"noise.file {str(path)!r} is not the file whose file_sha256 the search space names")
    noise = space.noise.model_copy(update={"file": name})
    return space.model_copy(update={"noise": noise}), [(name, content)]


def _yaml(space: SearchSpace) -> bytes:
    import yaml

    return yaml.safe_dump(space.model_dump(mode="json", exclude_none=True), sort_keys=False).encode()


def _digest(*parts: bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8) + part)
    return hashed.hexdigest()[:8]
