"""What multiprocessing leaves running in the process that tests run in."""

from __future__ import annotations

from multiprocessing import resource_tracker


def stop_resource_tracker() -> None:
    """End the process that Python starts beside those of a fleet, and keeps until it ends itself.

    The next fleet starts another one.
    """
    resource_tracker._resource_tracker._stop()
