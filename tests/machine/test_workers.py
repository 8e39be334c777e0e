"""Generators that run side by side, and how the seconds are shared."""

import threading
import time

import pytest

from ftjax.machine import clock
from ftjax.machine.workers import in_background, map_ahead, side_by_side, stop_point


def test_a_single_worker_needs_no_thread():
    def work():
        yield threading.current_thread()

    assert list(side_by_side([work()])) == [threading.current_thread()]


def test_all_that_is_yielded_comes_and_workers_overlap():
    both = threading.Barrier(2, timeout=30)

    def work(name):
        yield name, 0
        both.wait()  # one after the other would wait here for ever
        yield name, 1

    found = list(side_by_side([work("a"), work("b")]))
    assert sorted(found) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    for name in "ab":
        assert [n for own, n in found if own == name] == [0, 1]


def endless(ended):
    """Works until it is stopped, and notes that its files are closed."""
    try:
        yield "begun"
        while True:
            time.sleep(0.001)
            stop_point()
    finally:
        ended.append(threading.current_thread())


def test_an_error_stops_the_others_and_is_raised():
    ended = []

    def fails():
        yield "begun"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(side_by_side([endless(ended), fails()]))
    assert len(ended) == 1 and not ended[0].is_alive()


def test_a_worker_that_is_stopped_gives_its_locks_back():
    turn, first = threading.Lock(), threading.Event()

    def holds():
        with turn:
            first.set()
            while True:
                yield "holding"

    def waits():
        first.wait(30)
        with turn:
            yield "never"

    events = side_by_side([holds(), waits()])
    assert next(events) == "holding"
    events.close()  # and does not wait for ever
    assert not turn.locked()


def test_ctrl_c_and_a_caller_that_has_enough_stop_all():
    ended = []
    events = side_by_side([endless(ended), endless(ended)])
    assert next(events) == "begun"
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert len(ended) == 2
    events = side_by_side([endless(ended), endless(ended)])
    next(events)
    events.close()
    assert len(ended) == 4
    stop_point()  # nobody stops the caller's own thread


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
