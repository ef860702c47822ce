"""The threads that requests run on."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from sandboxweb.threads import DaemonThreads


def test_work_gives_its_result_or_its_error() -> None:
    threads = DaemonThreads(2, name="t")
    assert threads.submit(divmod, 7, 2).result(5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(5)


def test_a_free_thread_is_used_again() -> None:
    threads = DaemonThreads(8, name="t")
    names = {threads.submit(lambda: threading.current_thread().name).result(5) for _ in range(50)}
    assert len(names) <= 2


def test_work_runs_side_by_side_up_to_the_limit_and_the_rest_waits() -> None:
    threads = DaemonThreads(3, name="t")
    inside = threading.Semaphore(0)
    go = threading.Event()

    def work() -> int:
        inside.release()
        go.wait(10)
        return 1

    futures = [threads.submit(work) for _ in range(5)]
    for _ in range(3):
        assert inside.acquire(timeout=5)
    assert not inside.acquire(timeout=0.1)
    go.set()
    assert sum(future.result(5) for future in futures) == 5


def test_a_process_ends_while_a_thread_still_works() -> None:
    program = (
        "import time\n"
        "from sandboxweb.threads import DaemonThreads\n"
        "DaemonThreads(1, name='t').submit(time.sleep, 60)\n"
        "print('end')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "end\n"
