"""Several processes that train together, forked from the test's own: quick, and without a launcher."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

ANSWER_WITHIN = 60.0  # seconds; only a test that hangs waits so long


def run_ranks(n_ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in so many processes with what torchrun would set; return their results in order.

    A process that fails gives its exception; one that ends without a word gives None.
    """
    context = multiprocessing.get_context("fork")
    port = free_port()
    processes, ends = [], []
    for rank in range(n_ranks):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(rank, n_ranks, port, sender, function, arguments))
        process.start()
        sender.close()
        processes.append(process)
        ends.append(receiver)
    results = [_answer(receiver) for receiver in ends]
    for process in processes:
        process.join(ANSWER_WITHIN)
        assert process.exitcode is not None, "a process of the test hangs"
    return results


def run_two(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in two processes; raise if one of them failed."""
    results = run_ranks(2, function, *arguments)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answer(receiver: Connection) -> Any:
    try:
        if not receiver.poll(ANSWER_WITHIN):
            return TimeoutError("a process of the test gave no answer")
        return receiver.recv()
    except EOFError:
        return None


def _child(
    rank: int, n_ranks: int, port: int, sender: Connection, function: Callable[..., Any], arguments: Any
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(n_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",  # whatever the machine calls itself
    )
    try:
        result = function(*arguments)
    except BaseException as error:
        traceback.print_exc()
        result = error.with_traceback(None)
        result.__cause__ = result.__context__ = None
    sender.send(result)
    sender.close()
    os._exit(0)  # no pytest in this process
