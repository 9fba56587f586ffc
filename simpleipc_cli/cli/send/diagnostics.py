"""What `sipc send` shows of its exchanges beside the answer: trace, figures, progress."""

from __future__ import annotations

import os

from simpleipc_cli.cli.exitcodes import NAMES, Terminated, status_of
from simpleipc_cli.cli.send.progress import Progress, has_live_display
from simpleipc_cli.cli.stderr import format_error, print_error
from simpleipc_cli.cli.stdio import Input, Output
from simpleipc_cli.errors import SipcError
from simpleipc_cli.observe.stats import TransferStats
from simpleipc_cli.text import json_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simpleipc_cli.cli.tracing import OpenTrace
    from simpleipc_cli.transport import Stream

_REQUEST_ID_SHOWN = 64  # bytes; it comes from the environment


class Diagnostics:
    """Shows what was asked for, in a `with` around all that is to be seen.

    More than one exchange may be watched, also at the same time.
    """

    def __init__(
        self,
        path: str,
        began: float,
        *,
        trace: bool = False,
        trace_file: str | None = None,
        stats: bool = False,
        progress: bool | None = None,
    ) -> None:
        """Times count from `began`. `progress` None shows it where it is fit. Opens nothing yet."""
        self._path = path
        self._trace = (trace, trace_file)
        self._stats = stats
        self._progress_wanted = progress
        self._failure: SipcError | None = None
        self._meter = TransferStats(began)
        self._tracer: OpenTrace | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> Diagnostics:
        """Nothing goes wrong here: what does is to be seen, too."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Take the bar away, and show the figures of what was, however it ended."""
        if self._progress is not None:
            self._progress.stop()
        if self._tracer is not None:
            self._tracer.close()
        if self._stats:
            import json  # noqa: PLC0415 - on a terminal, most of what is in here is not needed

            print_error(json.dumps(self._figures(error or self._failure)))

    def open(self, source: Input | None, *, records: bool = False) -> None:
        """Before anything is sent, or read from `source`; None if it is on the command line.

        What separates `records` is not sent: how much there will be is then not known.
        Raises SipcError if a trace cannot be opened.
        """
        on_stderr, path = self._trace
        if on_stderr or path is not None:
            from simpleipc_cli.cli.tracing import open_trace  # noqa: PLC0415

            self._tracer = open_trace(self._warn, on_stderr=on_stderr, path=path)
        live = has_live_display()
        if self._progress_wanted is None:
            typed = source is not None and source.typed
            wanted = live and not typed and not on_stderr and not os.environ.get("NO_COLOR")
        else:
            wanted = self._progress_wanted
        if wanted:
            self._progress = Progress(
                self._meter,
                None if source is None or records else source.size,
                live=live and not on_stderr,
                at_once=self._progress_wanted is not None,
            )

    def watch(self, stream: Stream, number: int = 1) -> Stream:
        """The stream to use from now on. `number` tells it from others of this process."""
        if self._progress is not None:
            self._progress.start()
        if self._stats or self._progress is not None:
            stream = self._meter.watch(stream)
        if self._tracer is not None:
            name = f"{os.getpid()}-{number}"
            stream = self._tracer.watch(stream, name, _event(), self._path)
        return stream

    def cover(self, output: Output) -> Output:
        """The output to use: an answer on the terminal, and a bar gives way to it."""
        if self._progress is None or not output.on_terminal:
            return output
        return _Uncovered(output, self._progress)

    def give_way(self) -> None:
        """Something will be written to standard error: a bar gives way to it."""
        if self._progress is not None:
            self._progress.give_way()

    def failed(self, error: SipcError) -> None:
        """What has gone wrong, where that is told without being raised."""
        self._failure = error

    def _warn(self, error: SipcError) -> None:
        if self._progress is not None:
            self._progress.stop()
        print_error(format_error("send", error))

    def _figures(self, error: BaseException | None) -> dict[str, object]:
        meter = self._meter
        sent, received = meter.amounts()
        status = status_of(error)
        return {
            "path": json_safe(self._path),
            "outcome": _outcome(error, status),
            "status": status,
            "error": None if error is None else json_safe(_words(error)),
            "connect_seconds": _rounded(meter.connected),
            "first_byte_seconds": _rounded(meter.first_byte),
            "total_seconds": _rounded(meter.now()),
            "bytes_sent": sent.payload,
            "bytes_received": received.payload,
            "packets_sent": sent.packets,
            "packets_received": received.packets,
        }


def _event() -> str:
    """A handler of `sipc serve` says for which request it connects: so proxies line up."""
    request = os.environ.get("SIPC_REQUEST_ID")
    if not request:
        return "connected to"
    from simpleipc_cli.text import quoted  # noqa: PLC0415

    return f"connected for request {quoted(os.fsencode(request)[:_REQUEST_ID_SHOWN])} to"


def _outcome(error: BaseException | None, status: int) -> str:
    if isinstance(error, Terminated):
        return "interrupted"
    return "answered" if error is None else NAMES[status].lower()


def _words(error: BaseException) -> str:
    if isinstance(error, Terminated):
        return f"signal {error.number}"
    return str(error) or type(error).__name__


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


class _Uncovered(Output):
    """Ends a bar before the first byte of an answer appears where the bar is."""

    def __init__(self, output: Output, progress: Progress) -> None:
        """Takes over `output`."""
        self._output = output
        self._progress: Progress | None = progress

    def begin(self) -> None:
        self._output.begin()

    def fileno(self) -> int:
        return self._output.fileno()

    def write_nowait(self, payload: memoryview) -> int:
        self._uncover()
        return self._output.write_nowait(payload)

    def write(self, payload: memoryview) -> None:
        self._uncover()
        self._output.write(payload)

    def _uncover(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def complete(self) -> None:
        self._output.complete()

    def abandon(self) -> None:
        self._output.abandon()
