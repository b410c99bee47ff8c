"""Work that is done before its result is asked for."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = 2


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Generator[Result, None, None]:
    """Yield `function` of each item, in order, while threads work on the next ones: at most `threads` results wait.

    Raises what the function raises, when it comes to this item.
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque(pool.submit(function, item) for item in itertools.islice(rest, threads))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(function, item) for item in itertools.islice(rest, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
