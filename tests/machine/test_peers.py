"""Processes that train together end together."""

import socket
import subprocess
import sys
import time

import pytest

from ftjax.machine import peers

PROCESS = """
import sys, time
from ftjax.machine import peers
number, count, port, token = sys.argv[1:]
if number == "0":
    address = peers.listen(int(count))
    print(address.port, address.token.hex(), flush=True)
else:
    address = peers.Address("127.0.0.1", int(port), bytes.fromhex(token))
    peers.join(int(number), address)
    print("joined", flush=True)
for word in sys.stdin:
    match word.strip():
        case "leave":
            peers.leave()
            break
        case "fail":
            peers.abandon(3)
time.sleep(0.5)
"""


def start(number, count, port=0, token=""):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, *map(str, (number, count, port, token))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def three():
    first = start(0, 3)
    port, token = first.stdout.readline().split()
    # Who finds the port and does not know the token is nobody.
    socket.create_connection(("127.0.0.1", int(port))).close()
    all_three = [first, *(start(number, 3, port, token) for number in (1, 2))]
    for process in all_three[1:]:
        assert process.stdout.readline() == "joined\n"
    time.sleep(0.2)  # the first one takes them in a thread
    yield all_three
    for process in all_three:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("lost", [0, 2])
def test_who_is_killed_takes_the_others_along(three, lost):
    three[lost].kill()
    for number, process in enumerate(three):
        if number != lost:
            process.wait(timeout=15)
            said = process.stderr.read()
            assert process.returncode == peers.CODE and said.count("\n") == 1
            assert said.startswith(f"error: --distributed: process {lost} has ended")


def test_who_fails_takes_the_others_along(three):
    three[1].stdin.write("fail\n")
    three[1].stdin.flush()
    for process in three:
        process.wait(timeout=15)
        assert process.returncode == 3
    assert three[1].stderr.read() == ""
    assert "process 1 has ended" in three[2].stderr.read()


def test_who_is_through_is_not_lost(three):
    for number in (1, 0, 2):
        three[number].communicate("leave\n", timeout=15)
    assert [process.returncode for process in three] == [0, 0, 0]


def test_alone_nobody_is_left():
    assert peers.listen(1).port
    peers.leave()
    peers.abandon(1)
    peers.abandon_after_error()
