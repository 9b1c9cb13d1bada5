"""The one process that calls W&B. It writes what it is sent, one W&B run at a time, and may be killed at any moment.

W&B's calls can block for as long as its server does not answer, so they are made here, where the publisher can end them
without ending itself. Its end is this one's: nothing is written that nobody waits for.

    python -m orchestrator.publishing.wandb_process READ WRITE    (two descriptors that it inherits)
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import chdir
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from orchestrator.publishing.columns import (
    CELL,
    DIGEST,
    EPOCH,
    KIND,
    ROW_ATTEMPT,
    ROW_EVALUATION,
    SUPERSEDED,
    SWEEP_KEY,
)
from orchestrator.publishing.items import Item
from orchestrator.publishing.messages import Account, Order, Refused, Supersede, Trouble, Written
from orchestrator.publishing.offline_log import rows_once_written
from orchestrator.publishing.priority import lower_sessions

INIT_SECONDS = 120.0
FINISH_SECONDS = 240.0
GRAPHQL_SECONDS = 60.0
"""Long, as training has the processor first; a server that fails is noticed by W&B's client, within seconds."""
_RETRIES = 3  # of each request by W&B itself; patience beyond that is the publisher's
_DELETED = "previously created and deleted"
_REFUSED = re.compile("permission denied|not found during upsertBucket|invalid project name", re.IGNORECASE)
"""What W&B says where another try can change nothing: of one W&B run, and of a whole project."""
_LINES = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount config tags } }
}"""
_CELLS = """query Runs($project: String!, $entity: String, $filters: JSONString!) {
  project(name: $project, entityName: $entity) { runs(filters: $filters, first: 100) { edges { node { name tags } } } }
}"""


def main(read: int, write: int) -> None:
    """Carry out orders until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the publisher decides when this ends
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        lower_sessions()
    orders: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_receive, args=(Connection(read, writable=False), orders), daemon=True).start()
    answers = Connection(write, readable=False)
    answers.send(_account_or_not())
    while True:
        order = orders.get()
        answers.send(_carried_out(order))


def _receive(connection: Connection, orders: queue.Queue[Any]) -> None:
    """Hand orders on; without a publisher there is nothing left to do, whatever W&B is waiting for."""
    try:
        while True:
            orders.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _account_or_not() -> Account | Trouble | Refused:
    try:
        return _account()
    except ImportError as error:
        return Refused(f"the package wandb cannot be imported ({_words(error)}): pip install wandb", everything=True)
    except Exception as error:  # of W&B's client, such as a process of its own that does not start
        return Trouble(_words(error))


def _account() -> Account:
    import wandb
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import authenticate_session

    settings = wandb.setup().settings
    try:
        found = authenticate_session(host=settings.base_url, source="bo-sweep", prompt=False)
    except (AuthenticationError, ValueError, wandb.Error) as error:
        return Account(settings.base_url, False, settings.entity, _words(error), settings.mode)
    return Account(settings.base_url, found is not None, settings.entity, mode=settings.mode)


def _carried_out(order: Order | Supersede) -> Written | Trouble | Refused:
    try:
        if isinstance(order, Supersede):
            return _superseded(order)
        return _online(order) if order.online else _offline(order)
    except Exception as error:  # of W&B's client; whatever it is, it is not the end of the publisher
        return _refused(error) or Trouble(_words(error))


def _refused(error: Exception) -> Refused | None:
    text = " ".join(str(error).split())
    if _DELETED in text:
        return Refused("it was deleted there, and W&B takes an id only once")
    if not _REFUSED.search(text):
        return None
    remedy = "name a team or user and a project that this key may write to, with --entity and --project"
    return Refused(f"W&B refuses ({_words(error)}): {remedy}", everything=True)


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]


def _offline(order: Order) -> Written | Trouble:
    item = order.item
    run = _start(order, item.id)
    folder = Path(run.settings.sync_dir)
    _write(run, item, item.rows)
    run.finish(exit_code=1 if item.failed else 0)
    expected, rows = 1 if item.media else len(item.rows), rows_once_written(folder / f"run-{item.id}.wandb")
    if rows != expected:
        return Trouble(f"the file of {item.name} is incomplete ({rows} rows of {expected}): is the disk full?")
    return Written(item.id, folder, rows)


def _online(order: Order) -> Written | Trouble:
    """Add what the server does not have yet. The stream keeps its order, so what it has is the beginning."""
    item, ids = order.item, order.item.ids
    run = _start(order, _own_id(order, next(ids)), resume="allow")
    while _contradicts(run, item):
        old, new = run.id, _own_id(order, next(ids))
        _mark_superseded(run, by=new)
        run.finish()
        if not _is_superseded(order, old):
            return Trouble(f"{old} is not marked as superseded yet")
        run = _start(order, new, resume="allow")
    if item.media:
        return _online_media(order, run)
    there = run.starting_step if run.resumed else 0
    _write(run, item, [row for row in item.rows if row[0] >= there])
    run.finish(exit_code=1 if item.failed else 0)
    checked = _checked(order, run.id, len(item.rows), run.url)
    if isinstance(checked, Written) and item.job_type == CELL:
        return replace(checked, older=_older_cells(order, run.id))
    return checked


def _older_cells(order: Order, wandb_id: str) -> tuple[str, ...]:
    """Other states of a cell that are not marked yet: the publisher's own notes may be lost, or on another machine."""
    filters = {f"config.{name}": order.item.config[name] for name in (KIND, SWEEP_KEY, "cell")}
    answer = _asked(_CELLS, order, filters=json.dumps(filters))
    nodes = [edge["node"] for edge in ((answer.get("project") or {}).get("runs") or {}).get("edges") or ()]
    return tuple(node["name"] for node in nodes if node["name"] != wandb_id and SUPERSEDED not in (node["tags"] or ()))


def _online_media(order: Order, run: Any) -> Written | Trouble:
    """Tables and figures, then, once they are there, the digest that says so: a kill between them leaves no gap."""
    item = order.item
    there = run.starting_step if run.resumed else 0
    is_new = not run.resumed or run.config.get(DIGEST) != item.state
    if is_new:
        _write(run, item, [], at=there)
        run.finish()
        run = _start(order, run.id, resume="must")
        run.config.update(dict(item.config), allow_val_change=True)
    run.finish()
    if _config_of(_bucket(order, run.id)).get(DIGEST) != item.state:
        return Trouble(f"the server does not show the new state of {item.name}")
    return _checked(order, run.id, there + is_new, run.url)


def _own_id(order: Order, wandb_id: str) -> str:
    """That id, or where a W&B run of another sweep has it, one of our own: the same run may be part of several."""
    key = order.item.config[SWEEP_KEY]
    return wandb_id if _config_of(_bucket(order, wandb_id)).get(SWEEP_KEY, key) == key else f"{wandb_id}-{key}"


def _start(order: Order, wandb_id: str, *, resume: Literal["allow", "must"] | None = None) -> Any:
    item = order.item
    there = _bucket(order, wandb_id) if resume else None
    tags = [tag for tag in (there or {}).get("tags") or () if tag != SUPERSEDED]  # its reader's own among them
    run = _init(
        order,
        id=wandb_id,
        mode="online" if order.online else "offline",
        resume=resume,
        name=None if there else item.name,  # its reader may have given it another one
        group=item.group,
        job_type=item.job_type,
        tags=list(dict.fromkeys((*tags, *item.tags))),
        # the digest comes last, and the server's own is looked at first
        config={name: value for name, value in item.config.items() if not (resume and name == DIGEST)},
        settings=_settings(update_finish_state=item.ended),
    )
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        lower_sessions()  # W&B's own, which was started meanwhile
    return run


def _init(order: Order | Supersede, **options: Any) -> Any:
    import wandb

    with chdir(order.folder):  # W&B's client adds a config-defaults.yaml of the current folder to every config
        return wandb.init(entity=order.entity, project=order.project, dir=order.folder, reinit="create_new", **options)


def _settings(update_finish_state: bool = True) -> Any:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_file_stream_retry_max=_RETRIES,
        x_file_transfer_retry_max=_RETRIES,
        x_graphql_retry_max=_RETRIES,
        x_update_finish_state=update_finish_state,
    )


def _write(run: Any, item: Item, rows: Iterable[tuple[int, Mapping[str, Any]]], *, at: int | None = None) -> None:
    if item.media:
        media = _media(item)
        run.log(media, step=at)
        if at is not None:
            _await_saved(media)
    else:
        run.define_metric(EPOCH)
        run.define_metric("*", step_metric=EPOCH)
    for step, values in rows:
        run.log(dict(values), step=step)
    run.summary.update(dict(item.summary))


def _media(item: Item) -> dict[str, Any]:
    import wandb

    tables = {
        key: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        for key, (columns, rows) in item.tables.items()
    }
    return tables | {key: wandb.Image(path) for key, path in item.figures.items()}


def _await_saved(media: Mapping[str, Any]) -> None:
    """Wait until the server has the tables: a table whose upload fails would be missing, and W&B's client only logs it.

    Raises:
        ConnectionError: it does not have one of them.
    """
    for key, value in media.items():
        target = getattr(value, "_artifact_target", None)
        handle = getattr(target and target.artifact, "_save_handle", None)
        if handle is not None:
            answer = handle.wait_or(timeout=FINISH_SECONDS).response.log_artifact_response
            if answer.error_message:
                raise ConnectionError(f"table {key} was not taken: {answer.error_message}")


def _contradicts(run: Any, item: Item) -> bool:
    """Whether the last row on the server is of another attempt than this item's: the run was trained anew since."""
    if not run.resumed or not item.rows:
        return False
    evaluation, attempt = (run.summary.get(name) for name in (ROW_EVALUATION, ROW_ATTEMPT))
    if evaluation is None or attempt is None:
        return False
    ours = dict(item.rows).get(int(evaluation))
    return ours is None or ours.get(ROW_ATTEMPT) != attempt


def _checked(order: Order, wandb_id: str, expected: int, url: str | None) -> Written | Trouble:
    """Ask how many rows the server has: W&B's client gives a stream up after some tries, and raises nothing then."""
    lines = int((_bucket(order, wandb_id) or {}).get("historyLineCount") or 0)
    if lines < expected:
        return Trouble(f"of {order.item.name}, the server has {lines} rows of {expected}")
    return Written(wandb_id, None, lines, url)


def _bucket(order: Order | Supersede, wandb_id: str) -> dict[str, Any] | None:
    """What the server says of a W&B run, None where there is none."""
    bucket: dict[str, Any] | None = (_asked(_LINES, order, name=wandb_id).get("model") or {}).get("bucket")
    return bucket


def _asked(query: str, order: Order | Supersede, **variables: str) -> dict[str, Any]:
    """What the server answers to a query about the project."""
    import wandb
    from wandb.apis.public.service_api import ServiceApi

    settings = wandb.setup().settings
    told = {"project": order.project, "entity": order.entity or settings.entity, **variables}
    answer: dict[str, Any] = ServiceApi(settings).execute_graphql(query, told, timeout=GRAPHQL_SECONDS)
    return answer


def _config_of(bucket: Mapping[str, Any] | None) -> dict[str, Any]:
    values = json.loads((bucket or {}).get("config") or "{}")
    return {name: entry["value"] for name, entry in values.items() if isinstance(entry, dict) and "value" in entry}


def _superseded(order: Supersede) -> Written | Trouble:
    if _bucket(order, order.id) is None:  # someone has deleted it
        return Written(order.id, None, 0)
    run = _init(order, id=order.id, mode="online", resume="must", settings=_settings())
    _mark_superseded(run, by=order.by)
    run.finish()
    return Written(order.id, None, 0) if _is_superseded(order, order.id) else Trouble(f"{order.id} is not marked yet")


def _is_superseded(order: Order | Supersede, wandb_id: str) -> bool:
    """Whether the mark has arrived: W&B's client only logs that it has not."""
    return SUPERSEDED in ((_bucket(order, wandb_id) or {}).get("tags") or ())


def _mark_superseded(run: Any, *, by: str) -> None:
    run.tags = tuple(dict.fromkeys((*(run.tags or ()), SUPERSEDED)))
    run.config.update({"superseded_by": by}, allow_val_change=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
