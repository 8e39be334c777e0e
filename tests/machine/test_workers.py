"""Work that runs side by side, and how the seconds are shared."""

import threading
import time

import pytest

from ftjax.machine import clock
from ftjax.machine.workers import in_background, in_threads, map_ahead, stop_point


def test_threads_work_beside_the_callers():
    both = threading.Barrier(3, timeout=30)
    seen = []

    def work():
        both.wait()  # one after the other would wait here for ever
        seen.append(threading.current_thread())

    with in_threads(work, 2):
        work()
    assert len(set(seen)) == 3
    assert [thread for thread in seen if thread.is_alive()] == [
        threading.current_thread()
    ]


def endless(ended):
    """Works until it is stopped, and notes that its files are closed."""

    def work():
        try:
            while True:
                time.sleep(0.001)
                stop_point()
        finally:
            ended.append(threading.current_thread())

    return work


def test_an_error_in_a_thread_stops_the_others_and_is_raised():
    ended, calls = [], iter(range(2))

    def work():
        if next(calls) == 0:
            raise OSError("disk full")
        endless(ended)()

    with pytest.raises(OSError, match="disk full"):
        with in_threads(work, 2):
            endless(ended)()
    assert len(ended) == 2
    stop_point()  # nobody stops the caller's own thread any more


def test_ctrl_c_stops_all_and_locks_are_given_back():
    ended, turn = [], threading.Lock()

    def work():
        with turn:
            endless(ended)()

    with pytest.raises(KeyboardInterrupt):
        with in_threads(work, 2):
            time.sleep(0.05)
            raise KeyboardInterrupt
    assert len(ended) == 2 and not any(thread.is_alive() for thread in ended)
    assert not turn.locked()
    stop_point()


def test_seconds_are_shared_by_those_at_work(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock, "_clock", clock._Clock())

    def after(seconds):
        now[0] += seconds
        return clock.seconds()

    with clock.at_work():
        start = clock.seconds()
        assert after(4) - start == 4
        with clock.at_work():  # as if in a second thread
            assert after(4) - start == 6
            clock._listen(clock._EVENTS[0], 3.0)
            clock._listen("/jax/other", 9.0)
        assert after(4) - start == 10
    assert clock.own_compile_seconds() >= 1.5


def test_compilation_is_counted_by_thread():
    event = clock._EVENTS[-1]
    own, whole = clock.own_compile_seconds(), clock.compile_seconds()
    other = threading.Thread(target=clock._listen, args=(event, 5.0))
    other.start()
    other.join()
    assert clock.own_compile_seconds() == own
    assert clock.compile_seconds() == whole + 5


@pytest.mark.parametrize("threads", [1, 3])
def test_map_ahead_keeps_the_order_and_takes_few_items_ahead(threads):
    taken = []

    def items():
        for number in range(9):
            taken.append(number)
            yield number

    results = map_ahead(lambda number: number**2, items(), threads)
    for number in range(9):
        assert next(results) == number**2
        assert len(taken) <= number + 1 + threads
    assert list(results) == []


def test_map_ahead_gives_the_first_item_alone_and_then_several_at_once():
    alone, both = [], threading.Barrier(2, timeout=30)

    def call(number):
        if number == 0:
            alone.append(threading.active_count())
        else:
            both.wait()  # one after the other would wait here for ever
        return number

    before = threading.active_count()
    assert list(map_ahead(call, range(5), 2)) == list(range(5))
    assert alone == [before]


def test_map_ahead_raises_what_a_call_raises():
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 1 / (2 - number), range(5), 2))


def test_in_the_background_one_call_at_a_time_in_order():
    begun, go, order = threading.Event(), threading.Event(), []

    def slow(name):
        begun.set()
        go.wait(30)
        order.append((name, threading.current_thread()))

    with in_background() as call:
        call(slow, "first")
        assert begun.wait(30) and not order  # the caller goes on meanwhile
        go.set()
        call(slow, "second")
        call(slow, "third")
    assert [name for name, _ in order] == ["first", "second", "third"]
    assert threading.current_thread() not in {thread for _, thread in order}


@pytest.mark.parametrize("stopped", [False, True])
def test_what_comes_too_soon_waits_and_the_newest_is_called_at_the_end(stopped):
    called = []
    try:
        with in_background(every=60) as call:
            for number in range(4):
                call(called.append, number)
            if stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stopped
    assert called == [0, 3]


def test_an_error_in_the_background_is_raised():
    def fails():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), in_background() as call:
        call(fails)
