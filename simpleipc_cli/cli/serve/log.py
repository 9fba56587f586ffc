"""The format of a server's log: text, or JSON."""

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
_MAX_TEXTS = (2000, 50)  # characters; five of the latter fit into a line when escaped


class LineLog(Log):
    """Selects the records to write; subclasses format them."""

    def __init__(self, place: LineWriter, *, quiet: bool, verbose: bool) -> None:
        """`quiet` leaves warnings and errors only, `verbose` adds debug details."""
        self._place = place
        self._quiet = quiet
        self._verbose = verbose
        place.format_lost = self._lost

    def request(self, record: RequestRecord) -> None:
        if self._quiet and not record.outcome.is_error and not record.warnings:
            return
        line = self._request_line(record, monotonic() - record.began)
        self._place.write(line, _priority(record))

    def error(self, text: str) -> None:
        """Log the error that ends the server."""
        self._place.write(self._text_line("error", text), Priority.ERROR)

    def warning(self, text: str) -> None:
        self._place.write(self._text_line("warning", text), Priority.WARNING)

    def info(self, text: str) -> None:
        if not self._quiet:
            self._place.write(self._text_line("info", text), Priority.INFO)

    def debug(self, text: str) -> None:
        if self._verbose:
            self._place.write(self._text_line("debug", text), Priority.DEBUG)

    def stats(self, figures: Mapping[str, int]) -> None:
        self._place.write(self._counters_line(figures), Priority.INFO)

    def reopen(self) -> None:
        """Reopen the log file; keep the old one if that fails."""
        try:
            self._place.reopen()
        except SipcError as error:
            self.warning(f"sipc serve: {error.text}")

    def _warnings(self, record: RequestRecord) -> list[str]:
        return [*record.warnings, *(record.debug_notes if self._verbose else ())]

    def _lost(self, count: int) -> str:
        return self._text_line(
            "warning", f"({count} lines were lost: the log was full or not read)"
        )

    @abstractmethod
    def _request_line(self, record: RequestRecord, seconds: float) -> str:
        """Format a request that took `seconds`."""

    @abstractmethod
    def _text_line(self, level: str, text: str) -> str:
        """Format a message with its level: "error", "warning", "info" or "debug"."""

    @abstractmethod
    def _counters_line(self, figures: Mapping[str, int]) -> str:
        """Format the counters."""


def _priority(record: RequestRecord) -> Priority:
    if record.outcome.is_error:
        return Priority.ERROR
    return Priority.WARNING if record.warnings else Priority.INFO


class TextLog(LineLog):
    """Lines of text."""

    def _request_line(self, record: RequestRecord, seconds: float) -> str:
        """`1234-1 pid=99 in=5 out=5 status=0 time=0.002s: answered`."""
        parts = [
            f"{record.id}",
            f"pid={record.peer.pid}",
            f"in={record.bytes_in}",
            f"out={record.bytes_out}",
            f"status={record.status}",
            f"time={seconds:.3f}s",
        ]
        line = f"{' '.join(parts)}: {record.outcome.value.replace('_', ' ')}"
        if record.detail:
            line += f": {record.detail}"
        return self._line("; ".join([line, *self._warnings(record)]))

    def _text_line(self, level: str, text: str) -> str:  # noqa: ARG002
        return self._line(text)

    def _counters_line(self, figures: Mapping[str, int]) -> str:
        numbers = " ".join(f"{name}={number}" for name, number in figures.items())
        return self._line(f"counters: {numbers}")

    def _line(self, text: str) -> str:
        return printable(f"{_now()} {text}" if self._place.wants_time else text)


class JsonLog(LineLog):
    """One JSON object a line."""

    def _request_line(self, record: RequestRecord, seconds: float) -> str:
        peer = record.peer
        return self._object(
            _priority(record),
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
            warnings=self._warnings(record)[:_MAX_WARNINGS],
        )

    def _text_line(self, level: str, text: str) -> str:
        return self._object(Priority[level.upper()], "message", text=text)

    def _counters_line(self, figures: Mapping[str, int]) -> str:
        return self._object(Priority.INFO, "stats", **figures)

    def _object(self, priority: Priority, event: str, **fields: Any) -> str:
        """Format one object; cut its texts if the line would be too long."""
        line = ""
        for longest in _MAX_TEXTS:
            level = priority.name.lower()
            record = {"time": _now(), "level": level, "event": event, **_cut(fields, longest)}
            line = json.dumps(record)
            if len(line) < MAX_LINE:
                break
        return line


def _cut(value: Any, longest: int) -> Any:
    """Cut the texts in a value to `longest` characters, and make them JSON-safe."""
    match value:
        case str():
            value = json_safe(value)
            return value if len(value) <= longest else value[:longest] + "..."
        case list():
            return [_cut(part, longest) for part in value]
        case dict():
            return {name: _cut(part, longest) for name, part in value.items()}
        case _:
            return value


def _now() -> str:
    """Return the local time with its zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
