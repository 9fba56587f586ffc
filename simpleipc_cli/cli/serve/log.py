"""How a server's log looks: to people, and to programs."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from typing import Any

from simpleipc_cli.cli.journal import Priority
from simpleipc_cli.cli.line_writer import MAX_LINE, LineWriter
from simpleipc_cli.errors import SipcError
from simpleipc_cli.server.log import Log, RequestRecord
from simpleipc_cli.text import json_safe, printable

_MAX_WARNINGS = 4  # in JSON; more have never been seen
_LONGEST_TEXTS = (2000, 50)  # characters; of the latter, escaped, five fit into a line


class LineLog(Log):
    """A log in some place; what is shown is decided here, how it looks by the kinds below."""

    def __init__(self, place: LineWriter, *, quiet: bool, verbose: bool) -> None:
        """Quiet leaves problems only, verbose adds what helps to debug."""
        self._place = place
        self._quiet = quiet
        self._verbose = verbose
        place.report_lost(self._lost)

    def request(self, record: RequestRecord) -> None:
        """Shown unless quiet; what somebody should look at, always."""
        if self._quiet and not record.outcome.is_error and not record.warnings:
            return
        line = self._request_line(record, monotonic() - record.began)
        self._place.put(line, _priority(record))

    def warning(self, text: str) -> None:
        """Shown always."""
        self._place.put(self._text_line("problem", text), Priority.ERROR)

    def info(self, text: str) -> None:
        """Shown unless quiet."""
        if not self._quiet:
            self._place.put(self._text_line("news", text), Priority.INFO)

    def debug(self, text: str) -> None:
        """Shown when verbose."""
        if self._verbose:
            self._place.put(self._text_line("detail", text), Priority.DEBUG)

    def stats(self, figures: Mapping[str, int]) -> None:
        """Shown always: somebody asked."""
        self._place.put(self._counters_line(figures), Priority.INFO)

    def reopen(self) -> None:
        """A file is opened anew; if that fails the old one stays."""
        try:
            self._place.reopen()
        except SipcError as error:
            self.warning(f"sipc serve: {error.text}")

    def _remarks(self, record: RequestRecord) -> list[str]:
        return [*record.warnings, *(record.debug_notes if self._verbose else ())]

    def _lost(self, count: int) -> str:
        return self._text_line("problem", f"({count} lines were lost: nobody took them)")

    @abstractmethod
    def _request_line(self, record: RequestRecord, seconds: float) -> str:
        """A request, `seconds` after a thread took it up."""

    @abstractmethod
    def _text_line(self, level: str, text: str) -> str:
        """A text: "problem", "news" or "detail"."""

    @abstractmethod
    def _counters_line(self, figures: Mapping[str, int]) -> str:
        """Numbers by name."""


def _priority(record: RequestRecord) -> Priority:
    if record.outcome.is_error:
        return Priority.ERROR
    return Priority.WARNING if record.warnings else Priority.INFO


class TextLog(LineLog):
    """For people."""

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
        line = f"{' '.join(parts)}: {record.outcome.value}"
        if record.detail:
            line += f": {record.detail}"
        return self._line("; ".join([line, *self._remarks(record)]))

    def _text_line(self, level: str, text: str) -> str:  # noqa: ARG002
        return self._line(text)

    def _counters_line(self, figures: Mapping[str, int]) -> str:
        numbers = " ".join(f"{name}={number}" for name, number in figures.items())
        return self._line(f"counters: {numbers}")

    def _line(self, text: str) -> str:
        """In a file, which nobody watches, with its time."""
        return printable(f"{_now()} {text}" if self._place.wants_time else text)


class JsonLog(LineLog):
    """For programs: an object a line, for a request or for what else there is to say."""

    def _request_line(self, record: RequestRecord, seconds: float) -> str:
        peer = record.peer
        return self._object(
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
            queue_wait=round(record.queue_time, 6),
            outcome=record.outcome.key,
            detail=record.detail or None,
            remarks=self._remarks(record)[:_MAX_WARNINGS],
        )

    def _text_line(self, level: str, text: str) -> str:
        return self._object(level, text=text)

    def _counters_line(self, figures: Mapping[str, int]) -> str:
        return self._object("counters", **figures)

    def _object(self, event: str, **fields: Any) -> str:
        """One object; texts are cut, as far as the line is too long for an object otherwise."""
        line = ""
        for longest in _LONGEST_TEXTS:
            line = json.dumps({"time": _now(), "event": event, **_cut(fields, longest)})
            if len(line) < MAX_LINE:
                break
        return line


def _cut(value: Any, longest: int) -> Any:
    """A value whose texts are no longer than that, and can be read by everybody."""
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
    """Now, with the zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
