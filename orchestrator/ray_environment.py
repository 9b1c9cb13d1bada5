"""The environment that Ray and training run in: for the process that launches, and for the nodes of a cluster."""

from __future__ import annotations

NODE_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # training is what the machine is for; Ray would give it way to everything else
    # glibc hands freed activations back to the kernel and faults them in again at the next step: 10 to 15 % of a step.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""What has to be there before a node of Ray starts, since its workers inherit it."""

RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files for each trial: the ledger has it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is ours to handle
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's own snapshots are never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",  # nodes may go and come back
    "RAY_AIR_NEW_OUTPUT": "0",
    **NODE_ENVIRONMENT,
}
"""What a launch sets before it starts or joins a cluster."""

JOB_STOP_SECONDS = 300
"""From SIGTERM to SIGKILL when a job is stopped (RAY_JOB_STOP_WAIT_TIME_S): Ray's own 3 s are too few to save what is
in training."""
REPLACE_SHELL = "exec"
"""Begins the entry point of a job: the driver is a child of Ray's supervisor. Behind the shell, which a stop ends
first, it would be an orphan: in a pod nobody reaps those, and Ray would wait for it for JOB_STOP_SECONDS."""
