"""What a verb's exit status means; the one place that knows the numbers."""

from __future__ import annotations

from simpleipc_cli import errors


class Terminated(BaseException):
    """A signal ends us. No error: nobody who handles errors may take it for one."""

    def __init__(self, number: int) -> None:
        """`number` is the signal's."""
        super().__init__(number)
        self.number = number


class ExitCode:
    """The same for all verbs. Plain numbers: an enum takes long to load."""

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


NAMES = {number: name for name, number in vars(ExitCode).items() if name.isupper()}
"""What each is called, in the order of the numbers."""

SIGNALLED = 128
"""A verb cut short by a signal exits with this and the signal's number, as in a shell."""

_BY_ERROR = (
    (errors.NotListening, ExitCode.NOT_LISTENING),
    (errors.PathNotFound, ExitCode.PATH_NOT_FOUND),
    (errors.NotASocket, ExitCode.INVALID_PATH),
    (errors.PermissionDenied, ExitCode.PERMISSION),
    (errors.AddressInUse, ExitCode.IN_USE),
    (errors.TimedOut, ExitCode.TIMEOUT),
    (errors.ProtocolError, ExitCode.PROTOCOL),
    (errors.ExpectationFailed, ExitCode.NOT_AS_EXPECTED),
)


def status_of(error: BaseException | None) -> int:
    """What the process ends with after this error, a signal, or none."""
    if error is None:
        return ExitCode.OK
    return SIGNALLED + error.number if isinstance(error, Terminated) else exit_code(error)


def exit_code(error: BaseException) -> int:
    """The status that an error ends a verb with."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILURE)
