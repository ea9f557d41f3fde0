"""Who waits for room in the window: in order, each once, and nobody beside a free place."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import unimq
from unimq import Queue
from unimq._batcher import Batcher
from unimq._latch import Latch, WaitingRoom

TASKS = 600
WINDOW = 20
JOIN_S = 20.0
QUEUE = Queue("waited-for")


class Places:
    """Room for so many."""

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.room = WaitingRoom(lambda: self.free > 0)


def set_ones(turns: list[Latch]) -> list[int]:
    return [number for number, turn in enumerate(turns) if turn.is_set]


def test_the_first_are_called_first() -> None:
    places = Places()
    turns = [places.room.turn() for _ in range(4)]
    places.room.call(2)
    assert set_ones(turns) == [0, 1]
    places.room.call(1)
    assert set_ones(turns) == [0, 1, 2]
    places.room.call()
    assert set_ones(turns) == [0, 1, 2, 3]


def test_who_found_no_room_stays_the_first() -> None:
    places = Places()
    first, second = places.room.turn(), places.room.turn()
    places.room.call(1)
    first = places.room.again(first)
    assert not first.is_set
    places.room.call(1)
    assert (first.is_set, second.is_set) == (True, False)
    assert places.room.again(second) is second  # a wake-up without a call: still in line


def test_who_leaves_is_passed_over_and_calls_the_next_where_there_is_room() -> None:
    places = Places(free=1)
    gone, called, left = (places.room.turn() for _ in range(3))
    places.room.leave(gone)
    assert not called.is_set  # it had not been called: it takes no call with it
    places.room.call(1)
    assert called.is_set
    places.room.leave(called)
    assert left.is_set
    places.free = 0
    places.room.leave(left)
    assert len(places.room) == 0


def test_threads_that_come_and_go_leave_nobody_behind() -> None:
    places = Places(free=WINDOW)
    lock = threading.Lock()
    done: list[int] = []

    def take() -> bool:
        with lock:
            if places.free:
                places.free -= 1
                return True
            return False

    def one(number: int) -> None:
        for _ in range(50):
            turn = places.room.turn()
            try:
                while not take():
                    gate = threading.Event()
                    turn.add(gate.set)
                    assert gate.wait(JOIN_S)
                    turn = places.room.again(turn)
            finally:
                places.room.leave(turn)
            with lock:
                places.free += 1
            places.room.call(1)
        done.append(number)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(WINDOW * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert len(done) == len(threads)


def test_many_waiting_tasks_are_not_woken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    add = Batcher.add

    def counted(self: Batcher, *arguments: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        return add(self, *arguments, **options)

    monkeypatch.setattr(Batcher, "add", counted)

    async def main() -> int:
        async with unimq.connect_async("memory://waiting-room") as mq:
            await mq.declare(QUEUE)
            sender = mq.sender(QUEUE, window=WINDOW)
            await asyncio.gather(*(sender.send(b"%d" % n) for n in range(TASKS)))
            return (await mq.stats(QUEUE)).depth or 0

    assert asyncio.run(main()) == TASKS
    assert looks <= 5 * TASKS  # waking all for each landing would be TASKS / WINDOW / 2 looks for each


def test_a_cancelled_wait_does_not_keep_its_place() -> None:
    async def main() -> None:
        async with unimq.connect_async("memory://waiting-room") as mq:
            await mq.declare(QUEUE)
            sender = mq.sender(QUEUE, window=1)
            waiting = [asyncio.ensure_future(sender.send(b"%d" % n)) for n in range(200)]
            await asyncio.sleep(0)
            for task in waiting[::3]:
                task.cancel()
            results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), JOIN_S)
            kept = [result for n, result in enumerate(results) if n % 3]
            assert all(isinstance(result, unimq.Receipt) for result in kept)

    asyncio.run(main())
