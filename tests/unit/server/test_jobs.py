"""What waits for a thread."""

from __future__ import annotations

import threading
from collections import Counter

from helpers.waiting import wait_until

from simpleipc_cli.server.jobs import Jobs


def test_first_in_first_out():
    jobs = Jobs()
    for number in range(5):
        jobs.put(number)
    assert [jobs.get() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_dropped_job_is_not_run():
    jobs = Jobs()
    jobs.put(1)
    jobs.put(2)
    assert jobs.drop() == [1, 2]
    jobs.put(3)
    assert jobs.get() == 3
    assert jobs.drop() == []


def test_waiting_threads_are_woken_last_in_first_out():
    jobs, got = Jobs(), []

    def work(name):
        got.append((name, jobs.get()))

    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=work, args=name))
        threads[-1].start()
        wait_until(lambda: len(jobs._idle) == len(threads), "it to wait")
    for number in range(3):
        jobs.put(number)
        wait_until(lambda done=number + 1: len(got) == done, "it to be woken")
    for thread in threads:
        thread.join()
    assert got == [("c", 0), ("b", 1), ("a", 2)]


def test_many_threads_lose_nothing():
    jobs: Jobs[int | None] = Jobs()
    got: list[int] = []

    def work():
        while (job := jobs.get()) is not None:
            got.append(job)

    def bring(first):
        for number in range(first, first + 2000):
            jobs.put(number)

    workers = [threading.Thread(target=work) for _ in range(6)]
    bringers = [threading.Thread(target=bring, args=(at * 2000,)) for at in range(3)]
    for thread in workers + bringers:
        thread.start()
    for thread in bringers:
        thread.join()
    for _ in workers:
        jobs.put(None)
    for thread in workers:
        thread.join()
    assert Counter(got) == Counter(range(6000))
