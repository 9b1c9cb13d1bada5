"""Bytes between a local TCP connection and the websocket of a forwarded port, with little memory and one thread."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

CHUNK = 16 * 1024
"""Small enough that a socket which is ready to be written to takes it at once."""
POLL_SECONDS = 0.2
HALF_CLOSED_SECONDS = 10.0
"""A client that sends no more may still wait for an answer; the protocol has no word for that: so long it may wait."""
PING_SECONDS = 30.0
"""A connection on which nothing was said for so long is pinged: load balancers cut those that are silent for longer."""
STUCK_SECONDS = 60.0
"""A message that has begun has come by then, or the connection is dead."""
DATA, ERROR = 0, 1
"""Channels of the protocol, by the first byte of each message; the first message of each holds the port's number."""


def relay(local: socket.socket, remote: Any, closing: threading.Event) -> str:
    """Carry bytes both ways until one side ends or `closing` is set; returns what the cluster says went wrong, or ''.

    From neither side is more read than the other has taken, so memory stays small however much goes through.
    """
    import websocket

    local.setblocking(False)
    remote.settimeout(STUCK_SECONDS)
    to_local, to_remote, greeted, problem = b"", b"", set[int](), ""
    sends, last = True, time.monotonic()
    try:
        while not closing.is_set():
            reading = [*([] if to_local else [remote.sock]), *([local] if sends and not to_remote else [])]
            writing = [*([local] if to_local else []), *([remote.sock] if to_remote else [])]
            buffered = not to_local and isinstance(remote.sock, ssl.SSLSocket) and remote.sock.pending() > 0
            readable, writable = _ready(reading, writing, 0.0 if buffered else POLL_SECONDS)
            if readable or writable or buffered:
                last = time.monotonic()
            elif not sends and time.monotonic() - last > HALF_CLOSED_SECONDS:
                return problem
            elif sends and time.monotonic() - last > PING_SECONDS:
                remote.ping()
                last = time.monotonic()
            if remote.sock in writable:
                remote.send_binary(bytes([DATA]) + to_remote)
                to_remote = b""
            with suppress(BlockingIOError):
                if local in writable:
                    to_local = to_local[local.send(to_local) :]
                if local in readable:
                    to_remote = local.recv(CHUNK)
                    sends = bool(to_remote)
            if remote.sock in readable or buffered:
                code, frame = remote.recv_data_frame(True)
                if code == websocket.ABNF.OPCODE_CLOSE:
                    return problem
                if code == websocket.ABNF.OPCODE_BINARY and frame.data:
                    channel, content = frame.data[0], frame.data[1:]
                    if channel not in greeted:
                        greeted.add(channel)
                    elif channel == ERROR:
                        problem += content.decode(errors="replace")
                    else:
                        to_local = content
    except (websocket.WebSocketException, OSError):
        pass  # one of them is gone, and with it the connection
    return problem


def _ready(reading: list[Any], writing: list[Any], seconds: float) -> tuple[list[Any], list[Any]]:
    """Which can be read and which be written; unlike select.select it takes more than 1024 open files."""
    poll = select.poll()
    sockets = {each.fileno(): each for each in (*reading, *writing)}
    for number, each in sockets.items():
        poll.register(number, (select.POLLIN if each in reading else 0) | (select.POLLOUT if each in writing else 0))
    broken = select.POLLHUP | select.POLLERR | select.POLLNVAL  # found out by reading or writing
    found = [(sockets[number], events) for number, events in poll.poll(int(seconds * 1000))]
    return (
        [each for each, events in found if each in reading and events & (select.POLLIN | broken)],
        [each for each, events in found if each in writing and events & (select.POLLOUT | broken)],
    )
