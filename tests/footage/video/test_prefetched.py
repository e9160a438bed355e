import threading
import time
from collections.abc import Iterator

import pytest

from mvpose.footage.video.frames import prefetched


def wait_until(condition) -> None:
    while not condition():
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_the_items_are_the_same_in_the_same_order(depth: int) -> None:
    assert list(prefetched(iter([None, 1, "two", ValueError("an item, not raised")][:3]), depth)) == [None, 1, "two"]
    assert list(prefetched(iter(range(20)), depth)) == list(range(20))


def test_an_exception_object_is_an_item_like_any_other() -> None:
    error = ValueError("not raised")
    assert list(prefetched(iter([error]), 1)) == [error]


def test_an_error_comes_out_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("third")

    source = prefetched(items(), 2)
    assert [next(source), next(source)] == [0, 1]
    with pytest.raises(KeyError, match="third"):
        next(source)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_are_made_ahead_but_no_further_than_the_depth(depth: int) -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    source = prefetched(items(), depth)
    assert next(source) == 0
    wait_until(lambda: len(made) == depth + 1)
    time.sleep(0.05)
    assert len(made) == depth + 1
    source.close()


@pytest.mark.parametrize("taken", [1, 2, 7])
@pytest.mark.parametrize("fails_later", [False, True])
def test_the_thread_ends_and_closes_its_source_when_the_consumer_stops(taken: int, fails_later: bool) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            for i in range(1000):
                if fails_later and i > taken:
                    raise KeyError(i)
                yield i
        finally:
            closed.set()

    for i, item in enumerate(prefetched(items(), 1), 1):
        assert item == i - 1
        if i == taken:
            break
    wait_until(closed.is_set)


def test_a_consumer_that_fails_ends_the_thread() -> None:
    def consume() -> None:
        for _ in prefetched(iter(range(1000)), 4):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        consume()


def test_the_source_runs_beside_the_consumer() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for i in range(5):
            threads.add(threading.current_thread())
            yield i

    list(prefetched(items(), 1))
    assert threading.current_thread() not in threads
    assert all(thread.daemon for thread in threads)


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(prefetched(iter([1]), 0))
