"""The rules that must hold if any system call fails, and the record of one case."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from helpers.injection import Fault

LIMIT = 60.0
"""Seconds after which a process counts as hanging; not reached without a defect."""


@dataclass
class Case:
    """One fault in one scenario, and its result."""

    scenario: str
    fault: Fault
    injected: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    status: int | None = None
    broken: list[str] = field(default_factory=list)

    def must(self, holds: bool, rule: str) -> None:
        """Record a rule that does not hold."""
        if not holds:
            self.broken.append(rule)

    def __str__(self) -> str:
        lines = [f"{self.scenario} {self.fault}: {'; '.join(self.broken) or 'ok'}"]
        lines += [f"    failed: {call}" for call in self.injected]
        lines += [f"    said: {line}" for line in self.said]
        return "\n".join(lines)


def judge_text(case: Case, text: str) -> None:
    """Require that no traceback is shown, and no error is reported as another error."""
    case.said = text.splitlines()[-12:]
    case.must("Traceback" not in text, "a traceback")
    case.must(
        not re.search(r"^\S*(Error|Exception|Warning)\b.*:", text, re.M), "Python's own error"
    )
    case.must("unexpected" not in text, "an unexpected exception")
    named = not re.search(r"internal error: \w+\(", text)
    case.must(named, "an error that does not name its call and object")


def judge_log(case: Case, log: str) -> None:
    """Require that no error names standard output, to which a server writes nothing."""
    judge_text(case, log)
    case.must("standard output" not in log, "the error of another object")


def judge_answer(case: Case, what: str, expected: bytes, got: bytes, whole: bool) -> None:
    """Require a complete message to be correct, and a truncated one to be its beginning."""
    if whole:
        case.must(got == expected, f"{what}: half a message taken for whole ({len(got)} bytes)")
    else:
        case.must(expected.startswith(got), f"{what}: wrong bytes")


def judge_client(case: Case, expected: bytes, output: bytes, text: str) -> None:
    """Require the whole response after a success, and one line that names the failed call else."""
    judge_text(case, text)
    if case.status == 0:
        case.must(output == expected, f"status 0, but {len(output)} bytes of {len(expected)}")
    else:
        case.must(expected.startswith(output), "output that is not the response's beginning")
        case.must(case.status is None or case.status > 0, f"ended by signal {case.status}")
        lines = text.splitlines()
        case.must(
            len(lines) == 1 and bool(re.match(r"sipc(?: \w+)?: .+", text)),
            f"status {case.status} and {len(lines)} lines",
        )
        case.must(
            "standard output" not in text or any(writes(call) for call in case.injected),
            "the error of another object",
        )


def writes(call: str) -> bool:
    """Return whether a failed call may be a write to standard output, a pipe."""
    return call.startswith(("write(1<", "poll([{fd=1<", "<... write"))
