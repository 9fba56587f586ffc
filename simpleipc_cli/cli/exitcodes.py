"""Exit statuses. No other module contains their numbers."""

from __future__ import annotations

from simpleipc_cli import errors

SIGPIPE = 13  # used in the exit status even on systems without this signal

SIGNALLED = 128
"""A verb that a signal ends exits with this plus the signal's number, as in a shell."""


class Terminated(BaseException):
    """Raised when a signal ends the process. `except Exception` does not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class ExitCode:
    """Exit statuses of all verbs. They are plain numbers, as `enum` takes long to load."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_LISTENING = 3
    PATH_NOT_FOUND = 4
    INVALID_PATH = 5
    TIMEOUT = 6
    PROTOCOL = 7
    PERMISSION = 8
    IN_USE = 9
    NOT_AS_EXPECTED = 10
    CANNOT_EXECUTE = 126
    COMMAND_NOT_FOUND = 127


NAMES = {number: name for name, number in vars(ExitCode).items() if name.isupper()}
"""The name of each status, in numerical order."""

_BY_ERROR = (
    (errors.NotListening, ExitCode.NOT_LISTENING),
    (errors.ServerBusy, ExitCode.NOT_LISTENING),
    (errors.PathNotFound, ExitCode.PATH_NOT_FOUND),
    (errors.NotASocket, ExitCode.INVALID_PATH),
    (errors.PermissionDenied, ExitCode.PERMISSION),
    (errors.AddressInUse, ExitCode.IN_USE),
    (errors.TimedOut, ExitCode.TIMEOUT),
    (errors.ProtocolError, ExitCode.PROTOCOL),
    (errors.ExpectationFailed, ExitCode.NOT_AS_EXPECTED),
)


def exit_code(error: BaseException | None) -> int:
    """Return the exit status for an error or a Terminated; 0 for None."""
    if error is None:
        return ExitCode.OK
    if isinstance(error, Terminated):
        return SIGNALLED + error.number
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILURE)
