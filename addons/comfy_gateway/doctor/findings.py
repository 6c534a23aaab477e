"""What the doctor says."""

import json
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad a finding is. Only FAIL makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIP = "skip"
    """Not looked at; the text says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. Holds no secret."""

    status: Status
    subject: str
    text: str = ""

    def line(self) -> str:
        """For a person: ``FAIL duty http://localhost:3000: cannot be connected to``."""
        return f"{self.status:<4} {self.subject}" + (f": {self.text}" if self.text else "")

    def json(self) -> str:
        """For a program: an object with ``status`` (ok, warn, fail or skip), ``subject`` and ``text``."""
        return json.dumps({"status": self.status.lower(), "subject": self.subject, "text": self.text})


def ok(subject: str, text: str = "") -> Finding:
    return Finding(Status.OK, subject, text)


def warn(subject: str, text: str) -> Finding:
    return Finding(Status.WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    return Finding(Status.FAIL, subject, text)


def skip(subject: str, text: str) -> Finding:
    return Finding(Status.SKIP, subject, text)
