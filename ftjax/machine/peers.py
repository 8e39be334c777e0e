"""Processes that train together end together: who loses another says so, and ends.

A program that adds up over processes waits for all of them; JAX itself sees after 100 s
that one is gone, and ends the others with pages of text. So each keeps a connection to
the first process: where it closes before the other end has said that it is through, the
process there was killed, or its machine is gone.
"""

import os
import secrets
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import NamedTuple

CODE = 3  # exit code of a process that has lost another
THROUGH = b"through"
TOKEN = 16  # bytes
PATIENCE = 10.0  # seconds for a connection, or for the watch to see what was felt
OWN_WORDS = 1.0  # seconds for an error of this process that others met as well
# An idle connection is tried after 5 s, then every 5 s, three times.
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

_connections: dict[int, socket.socket] = {}
_turn = threading.Lock()


class Address(NamedTuple):
    """Where the first process takes connections.

    Attributes:
        host: its name.
        port: its number.
        token: that tells a peer from whoever else finds the port.
    """

    host: str
    port: int
    token: bytes


def listen(count: int) -> Address:
    """Takes the connections of all other processes, in a thread; for the first one.

    Args:
        count: of all processes.
    """
    server = socket.create_server(("", 0))
    port, token = server.getsockname()[1], secrets.token_bytes(TOKEN)
    threading.Thread(target=_accept, args=(server, count, token), daemon=True).start()
    return Address(socket.gethostname(), port, token)


def join(number: int, address: Address) -> None:
    """Connects this process with the first one, and watches from then on.

    Where no connection can be made, only JAX watches.

    Args:
        number: of this process, from 1.
        address: that `listen` returned.
    """
    with suppress(OSError):
        connection = socket.create_connection(address[:2], timeout=PATIENCE)
        connection.sendall(address.token + number.to_bytes(4, "big"))
        _begin(0, connection)


def leave() -> None:
    """Says that this process is through: its end is then no loss."""
    for connection in _connections.values():
        with suppress(OSError):
            connection.sendall(THROUGH)


def abandon(code: int) -> None:
    """Ends this process at once if others wait for it, which end then as well.

    In order it would wait for them, and they for it. Returns where there are none.
    """
    if not _connections:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def abandon_after_error() -> None:
    """Likewise after an error that nobody expected: of a lost process, or of our own.

    A program that was adding up raises what the device calls a lost connection.
    """
    if _connections:
        error = traceback.format_exc()
        time.sleep(PATIENCE)  # a watcher that sees the loss ends this process
        sys.stderr.write(error)
        abandon(1)


def _accept(server: socket.socket, count: int, token: bytes) -> None:
    """Takes the connections of all others."""
    while len(_connections) < count - 1:
        connection, _ = server.accept()
        connection.settimeout(PATIENCE)
        with suppress(OSError):
            said = _read(connection, TOKEN + 4)
            number = int.from_bytes(said[TOKEN:], "big")
            if secrets.compare_digest(said[:TOKEN], token) and number < count:
                _begin(number, connection)
                continue
        connection.close()
    server.close()


def _begin(number: int, connection: socket.socket) -> None:
    """Watches the process at the other end of a connection."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    _connections[number] = connection
    threading.Thread(target=_watch, args=(number, connection), daemon=True).start()


def _watch(number: int, connection: socket.socket) -> None:
    """Ends this process when the one at the other end is lost."""
    said = b""
    with suppress(OSError):
        said = _read(connection, len(THROUGH))
    if said == THROUGH:
        return
    if said:  # the first process passes on whom it has lost
        number = int.from_bytes(said[:4], "big")
    if number:  # without the first process JAX ends this one at once
        time.sleep(OWN_WORDS)
    with _turn:  # one line, whoever else is lost by now
        for other in _connections.values():
            with suppress(OSError):
                other.sendall(number.to_bytes(4, "big"))
        line = (
            f"error: --distributed: process {number} has ended, so this one does too; "
            "start all again with the same command, which goes on from the last epoch\n"
        )
        with suppress(OSError, ValueError):
            sys.stderr.write(line)
        abandon(CODE)


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the other end closes."""
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            break
        content += part
    return content
