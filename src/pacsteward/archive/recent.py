"""A small memory of what was needed last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps values up to a total cost, the most recently used; may be shared by threads.

    Parameters
    ----------
    capacity
        Total cost of what is kept.
    cost
        Cost of one value, in the same unit; a value that costs more than all is not kept.
    """

    def __init__(self, capacity: int, cost: Callable[[V], int]) -> None:
        self._capacity = capacity
        self._cost = cost
        self._values: OrderedDict[K, V] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return the value, None when it is not kept."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep a value; the least recently used ones go."""
        cost = self._cost(value)
        if cost > self._capacity:
            return
        with self._lock:
            former = self._values.pop(key, None)
            if former is not None:
                self._total -= self._cost(former)
            self._values[key] = value
            self._total += cost
            while self._total > self._capacity:
                _key, oldest = self._values.popitem(last=False)
                self._total -= self._cost(oldest)
