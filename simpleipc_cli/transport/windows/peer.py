"""The process at the other end of a pipe."""


def reports_users() -> bool:
    """Return False: the system reports only the process."""
    return False
