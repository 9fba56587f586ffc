"""The server's log as lines of text or JSON."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from typing import Any

from simpleipc_cli.cli.line_writer import MAX_LINE, LineWriter, Priority
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.log import Log, RequestRecord
from simpleipc_cli.text import json_safe, printable

_MAX_WARNINGS = 4  # in JSON, so that a line stays short
_MAX_TEXTS = (2000, 50)  # characters; five escaped texts of the second length fit into a line


class LineLog(Log):
    """Selects the records to write; subclasses format them."""

    def __init__(self, writer: LineWriter, *, quiet: bool, verbose: bool) -> None:
        """`quiet` leaves warnings and errors only, `verbose` adds debug details."""
        self._writer = writer
        self._quiet = quiet
        self._verbose = verbose
        writer.format_lost = self._format_lost

    def request(self, record: RequestRecord) -> None:
        if self._quiet and not record.outcome.is_error and not record.warnings:
            return
        priority = Priority.WARNING if record.warnings else Priority.INFO
        if record.outcome.is_error:
            priority = Priority.ERROR
        warnings = [*record.warnings, *(record.debug_notes if self._verbose else ())]
        seconds = monotonic() - record.started_at
        self._writer.write(self._format_request(priority, record, seconds, warnings), priority)

    def error(self, text: str) -> None:
        self._write(Priority.ERROR, text)

    def warning(self, text: str) -> None:
        self._write(Priority.WARNING, text)

    def info(self, text: str) -> None:
        if not self._quiet:
            self._write(Priority.INFO, text)

    def debug(self, text: str) -> None:
        if self._verbose:
            self._write(Priority.DEBUG, text)

    def stats(self, counters: Mapping[str, int]) -> None:
        self._writer.write(self._format_stats(counters), Priority.INFO)

    def reopen(self) -> None:
        """Reopen the log file; keep the old one if that fails."""
        try:
            self._writer.reopen()
        except SipcError as error:
            self.warning(f"sipc serve: {error.text}")

    def _write(self, priority: Priority, text: str) -> None:
        self._writer.write(self._format_text(priority, text), priority)

    def _format_lost(self, count: int) -> str:
        text = f"({count} lines were lost: the log was full or not read)"
        return self._format_text(Priority.WARNING, text)

    @abstractmethod
    def _format_request(
        self, priority: Priority, record: RequestRecord, seconds: float, warnings: list[str]
    ) -> str:
        """Format a request that took `seconds`."""

    @abstractmethod
    def _format_text(self, priority: Priority, text: str) -> str:
        """Format a message."""

    @abstractmethod
    def _format_stats(self, counters: Mapping[str, int]) -> str:
        """Format the counters."""


class TextLog(LineLog):
    """Lines of text."""

    def _format_request(
        self,
        priority: Priority,  # noqa: ARG002
        record: RequestRecord,
        seconds: float,
        warnings: list[str],
    ) -> str:
        """Return `1234-1 pid=99 in=5 out=5 status=0 time=0.002s: answered` and the like."""
        line = (
            f"{record.id} pid={record.peer.pid} in={record.bytes_in} out={record.bytes_out} "
            f"status={record.status} time={seconds:.3f}s: {record.outcome.value.replace('_', ' ')}"
        )
        if record.detail:
            line += f": {record.detail}"
        return self._line("; ".join([line, *warnings]))

    def _format_text(self, priority: Priority, text: str) -> str:  # noqa: ARG002
        return self._line(text)

    def _format_stats(self, counters: Mapping[str, int]) -> str:
        numbers = " ".join(f"{name}={number}" for name, number in counters.items())
        return self._line(f"counters: {numbers}")

    def _line(self, text: str) -> str:
        return printable(f"{_now()} {text}" if self._writer.wants_time else text)


class JsonLog(LineLog):
    """One JSON object per line."""

    def _format_request(
        self, priority: Priority, record: RequestRecord, seconds: float, warnings: list[str]
    ) -> str:
        peer = record.peer
        return _json_object(
            priority,
            "request",
            id=record.id,
            pid=peer.pid,
            uid=peer.uid if peer.uid >= 0 else None,  # users have no numbers on Windows
            gid=peer.gid,
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            status=int(record.status) if record.status.isdigit() else None,
            signal=record.status if record.status.startswith("SIG") else None,
            duration=round(seconds, 6),
            queue_time=round(record.queue_time, 6),
            outcome=record.outcome.value,
            detail=record.detail or None,
            warnings=warnings[:_MAX_WARNINGS],
        )

    def _format_text(self, priority: Priority, text: str) -> str:
        return _json_object(priority, "message", text=text)

    def _format_stats(self, counters: Mapping[str, int]) -> str:
        return _json_object(Priority.INFO, "stats", **counters)


def _json_object(priority: Priority, event: str, **fields: Any) -> str:
    """Return one object; cut its texts if the line would be too long."""
    line = ""
    for max_text in _MAX_TEXTS:
        level = priority.name.lower()
        record = {"time": _now(), "level": level, "event": event, **_cut(fields, max_text)}
        line = json.dumps(record)
        if len(line) < MAX_LINE:
            break
    return line


def _cut(value: Any, max_text: int) -> Any:
    """Cut the texts in a value to `max_text` characters, and make them JSON-safe."""
    match value:
        case str():
            value = json_safe(value)
            return value if len(value) <= max_text else value[:max_text] + "..."
        case list():
            return [_cut(part, max_text) for part in value]
        case dict():
            return {name: _cut(part, max_text) for name, part in value.items()}
        case _:
            return value


def _now() -> str:
    """Return the local time with its zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
