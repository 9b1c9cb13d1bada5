"""The publisher's end of the process that calls W&B: started when needed, ended when it does not answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from orchestrator.publishing.messages import Account, Order, Refused, Supersede, Trouble, Written
from orchestrator.publishing.target import passed_on

START_SECONDS = 600.0
ANSWER_SECONDS = 900.0
"""Longest wait for one W&B run; W&B's own limits (wandb_process.py) are shorter."""
ITEMS_A_PROCESS = 200
"""W&B's client keeps a little of every W&B run, so that its process is replaced now and then."""
_LOOK_SECONDS = 0.2


class TroubleError(ConnectionError):
    """W&B did not take something; it will be tried again."""


class RefusedError(Exception):
    """W&B will not take something, however often it is asked; with `everything`, nothing at all of this project."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.everything = refused.everything


class StoppedError(Exception):
    """The user wants to leave, and W&B does not answer."""


class Writer:
    """Writes W&B runs, one after another.

    Args:
        lock: a descriptor that the process inherits, so that the folder stays locked as long as it lives.
        is_over: asked while waiting; where it says yes, waiting ends with StoppedError.
    """

    def __init__(self, lock: int, is_over: Callable[[], bool] = lambda: False) -> None:
        self._lock, self._is_over = lock, is_over
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Connection | None = None
        self._answers: Connection | None = None
        self._written = 0
        self.account: Account | None = None

    def start(self) -> Account:
        """Start the process, if none runs. Raises TroubleError, StoppedError, RefusedError."""
        if self._process is not None and self.account is not None:
            return self.account
        before = os.pread(self._lock, 12, 0).strip()
        if before.isdigit():
            _end_leftover(int(before))
        read_orders, write_orders = os.pipe()
        read_answers, write_answers = os.pipe()
        inherited = (read_orders, write_answers, self._lock)
        module = "orchestrator.publishing.wandb_process"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(read_orders), str(write_answers)],
            env=passed_on(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
        )
        os.close(read_orders)
        os.close(write_answers)
        os.pwrite(self._lock, f"{self._process.pid:>12}".encode(), 0)
        self._orders, self._answers = Connection(write_orders, readable=False), Connection(read_answers, writable=False)
        self._written = 0
        account = self._answer(START_SECONDS)
        assert isinstance(account, Account)
        self.account = account
        return account

    def write(self, order: Order | Supersede) -> Written:
        """Carry out one order. Raises TroubleError, StoppedError (the process is ended then), or RefusedError."""
        if self._written >= ITEMS_A_PROCESS:
            self.stop()
        self.start()
        assert self._orders is not None
        try:
            self._orders.send(order)
        except OSError as error:
            self.stop()
            raise TroubleError("the process that calls W&B has ended") from error
        written = self._answer(ANSWER_SECONDS)
        assert isinstance(written, Written)
        self._written += 1
        return written

    def _answer(self, patience: float) -> Account | Written:
        assert self._answers is not None
        deadline = time.monotonic() + patience
        while not self._answers.poll(_LOOK_SECONDS):
            if self._is_over() or time.monotonic() > deadline:
                self.stop()
                raise StoppedError if self._is_over() else TroubleError(f"no answer for {patience:.0f} s")
        try:
            answer = self._answers.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise TroubleError("the process that calls W&B has ended by itself") from error
        if isinstance(answer, Trouble):
            self.stop()  # what W&B's client still tries is not waited for
            raise TroubleError(answer.reason)
        if isinstance(answer, Refused):
            raise RefusedError(answer)
        return answer  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process and W&B's own; nothing that was answered is lost."""
        process, self._process, self.account = self._process, None, None
        for connection in (self._orders, self._answers):
            if connection is not None:
                connection.close()
        self._orders = self._answers = None
        if process is None:
            return
        _end_with_children(process.pid)
        process.wait()


def _end_with_children(process: int) -> None:
    """Kill a process and those that it started; W&B's own is in another session, which no signal to ours reaches."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for each in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _end_leftover(process: int) -> None:
    """Kill W&B's own process where a publisher that was killed has left it: it would write to the same W&B runs."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        if psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            return  # who holds the lock has outlived it: the number is another process's now
    for each in psutil.process_iter(["name", "cmdline"]):
        words = each.info["cmdline"] or []
        if (each.info["name"] or "").startswith("wandb-core") and words[-1:] == [str(process)] and "--pid" in words:
            with suppress(psutil.NoSuchProcess):
                each.kill()
                each.wait(10)
