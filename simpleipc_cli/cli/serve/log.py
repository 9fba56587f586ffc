"""The server's log as lines of text or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from time import monotonic
from traceback import format_exception

from simpleipc_cli.cli.line_writer import MAX_LINE, LineWriter, Priority
from simpleipc_cli.cli.serve import ServeOptions
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.context import Log, RequestRecord
from simpleipc_cli.text import json_safe, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_WARNINGS = 4  # per JSON object, to limit the length of a line
_MAX_TEXTS = (2000, 50)  # characters; five escaped texts of the second length fit in a line
_MAX_STDERR = (3900, 1900, 900, 600, 300)  # characters; any escaped text of the last length fits
_MAX_TEXT_LINE = MAX_LINE - 4  # bytes, without a newline and a priority such as `<4>`


class LineLog(Log):
    """Writes the records as lines of text, or of JSON objects."""

    def __init__(self, options: ServeOptions) -> None:
        """Open the log file. Raises SipcError."""
        self._as_json = options.log_format == "json"
        if self._as_json:
            # Import it now: later there may be no free descriptor.
            import json  # noqa: F401, PLC0415 - for _json_object()
        self._quiet = options.quiet  # warnings and errors only
        self._verbose = options.verbose  # debug details, too
        self._writer = LineWriter(options.log_file)
        self._writer.format_lost = self._format_lost

    def request(self, record: RequestRecord) -> None:
        if self._quiet and not record.outcome.is_error and not record.warnings:
            return
        priority = Priority.WARNING if record.warnings else Priority.INFO
        if record.outcome.is_error:
            priority = Priority.ERROR
        warnings = [*record.warnings, *(record.debug_notes if self._verbose else ())]
        seconds = monotonic() - record.started_at
        if self._as_json:
            line = _json_object(priority, "request", _request_fields(record, seconds, warnings))
        else:
            line = self._text_line(_request_text(record, seconds, warnings))
        self._writer.write(line, priority)

    def stderr(self, request_id: str, process: int, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if self._as_json:
            fields = {"id": request_id or None, "process": process, "text": text}
            written = _json_object(Priority.WARNING, "stderr", fields, _MAX_STDERR)
        else:
            written = self._text_line(f"{request_id or f'process {process}'} stderr: {text}")
            written = _cut_bytes(written)
        self._writer.write(written, Priority.WARNING)

    def error(self, text: str) -> None:
        self._message(Priority.ERROR, text)

    def warning(self, text: str) -> None:
        self._message(Priority.WARNING, text)

    def info(self, text: str) -> None:
        if not self._quiet:
            self._message(Priority.INFO, text)

    def debug(self, text: str) -> None:
        if self._verbose:
            self._message(Priority.DEBUG, text)

    def exception(self, text: str, error: BaseException) -> None:
        traceback = "".join(format_exception(error)).rstrip()
        if self._as_json:
            self._message(Priority.ERROR, f"{text}\n{traceback}")
        else:
            for line in (text, *traceback.splitlines()):
                self._message(Priority.ERROR, line)

    def stats(self, counters: Mapping[str, int]) -> None:
        if self._as_json:
            line = _json_object(Priority.INFO, "stats", counters)
        else:
            numbers = " ".join(f"{name}={number}" for name, number in counters.items())
            line = self._text_line(f"counters: {numbers}")
        self._writer.write(line, Priority.INFO)

    def reopen(self) -> None:
        """Reopen the log file; keep the old one if that fails."""
        try:
            self._writer.reopen()
        except SipcError as error:
            self.warning(f"sipc serve: {error.text}")

    def _message(self, priority: Priority, text: str) -> None:
        self._writer.write(self._format_message(priority, text), priority)

    def _format_message(self, priority: Priority, text: str) -> str:
        if self._as_json:
            return _json_object(priority, "message", {"text": text})
        return self._text_line(text)

    def _format_lost(self, count: int) -> str:
        text = f"({count} lines were lost: the log was full or not read)"
        return self._format_message(Priority.WARNING, text)

    def _text_line(self, text: str) -> str:
        return printable(f"{_now()} {text}" if self._writer.wants_time else text)


def _request_text(record: RequestRecord, seconds: float, warnings: list[str]) -> str:
    """Return a line such as `1234-1 pid=99 in=5 out=5 status=0 time=0.002s: answered`."""
    pid = record.request.peer.pid
    line = (
        f"{record.request.id} pid={pid if pid >= 0 else '-'} "
        f"in={record.bytes_in} out={record.bytes_out} "
        f"status={record.status} time={seconds:.3f}s: {record.outcome.value.replace('_', ' ')}"
    )
    if record.detail:
        line += f": {record.detail}"
    return "; ".join([line, *warnings])


def _request_fields(record: RequestRecord, seconds: float, warnings: list[str]) -> dict[str, Any]:
    peer = record.request.peer
    return {
        "id": record.request.id,
        "pid": peer.pid if peer.pid >= 0 else None,
        "uid": peer.uid if peer.uid >= 0 else None,  # users have no numbers on Windows
        "gid": peer.gid if peer.gid >= 0 else None,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "status": int(record.status) if record.status.isdigit() else None,
        "signal": record.status if record.status.startswith("SIG") else None,
        "duration": round(seconds, 6),
        "queue_time": round(record.queue_time, 6),
        "outcome": record.outcome.value,
        "detail": record.detail or None,
        "warnings": warnings[:_MAX_WARNINGS],
    }


def _json_object(
    priority: Priority,
    event: str,
    fields: Mapping[str, Any],
    max_texts: Iterable[int] = _MAX_TEXTS,
) -> str:
    """Return one object; shorten its texts if the line would be too long."""
    import json  # noqa: PLC0415 - only for --log-format json

    line = ""
    for max_text in max_texts:
        record = {"time": _now(), "level": priority.name.lower(), "event": event}
        record |= {name: _cut(value, max_text) for name, value in fields.items()}
        line = json.dumps(record)
        if len(line) < MAX_LINE:
            break
    return line


def _cut_bytes(line: str) -> str:
    data = line.encode("utf-8", "backslashreplace")
    if len(data) < _MAX_TEXT_LINE:
        return line
    return data[: _MAX_TEXT_LINE - 3].decode("utf-8", "ignore") + "..."


def _cut(value: Any, max_text: int) -> Any:
    """Shorten a text, or each text in a list, to `max_text` characters; make it JSON-safe."""
    if isinstance(value, list):
        return [_cut(text, max_text) for text in value]
    if not isinstance(value, str):
        return value
    value = json_safe(value)
    return value if len(value) <= max_text else value[:max_text] + "..."


def _now() -> str:
    """Return the local time with its time zone, in milliseconds."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
