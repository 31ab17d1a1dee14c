"""The workers that have nothing to do: they sleep without the scheduler's lock until they are woken."""

from __future__ import annotations

import threading


class IdleWorkers:
    """Sleeping workers. Every method is called with `lock` held.

    A Condition wakes who has slept longest. Here the last to fall asleep wakes first: the caches of its
    processor are still warm.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._asleep: list[threading.Lock] = []

    def __len__(self) -> int:
        return len(self._asleep)

    def sleep(self, parked: threading.Lock) -> None:
        """Release the lock until woken; `parked` is the worker's own lock, which it holds."""
        self._asleep.append(parked)
        self._lock.release()
        parked.acquire()
        self._lock.acquire()

    def wake(self, workers: int) -> None:
        """Wake so many workers, or all that sleep if there are fewer."""
        for _ in range(min(workers, len(self._asleep))):
            self._asleep.pop().release()
