"""Files as ComfyUI names them, and the address under which the gateway shows each.

Every server numbers its outputs from ``ComfyUI_00001_.png``, so a name alone says nothing about which picture is
meant. Each server but home therefore has an *alias*, a first subfolder that exists only in what clients see: in
events, in history and in ``/view``. It never changes, so no address that was once shown gets another meaning.
Inputs keep their names, for they are brought to whichever server needs them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

ALIASED_TYPES: Final = frozenset({"output", "temp"})


def pod_alias(pod_name: str) -> str:
    """The alias of a pod, which follows from its name: ``<tag>-<slug>-<attempt>`` (``core.pods.podname``)."""
    return "private-" + pod_name.rpartition("-")[2]


@dataclass(frozen=True, slots=True)
class FileName:
    """One file of a server; the defaults are those of ``/view`` (0.3.64, ``server.py``)."""

    filename: str
    subfolder: str = ""
    type: str = "output"

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> "FileName | None":
        """The file that an output or a query of ``/view`` names, or None when it names none."""
        filename = named.get("filename")
        if not isinstance(filename, str) or not filename:
            return None
        return cls(filename, str(named.get("subfolder") or ""), str(named.get("type") or "output"))

    @property
    def path(self) -> str:
        """``subfolder/filename``."""
        return f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename


def shown(file: FileName, alias: str) -> FileName:
    """The file as clients see it. ``alias`` is the server's, empty for home."""
    if not alias or file.type not in ALIASED_TYPES:
        return file
    return replace(file, subfolder=f"{alias}/{file.subfolder}" if file.subfolder else alias)


def without_alias(file: FileName, alias: str) -> FileName | None:
    """The file as the server of that alias knows it, or None when the name does not begin with the alias."""
    first, _, rest = file.subfolder.partition("/")
    if not alias or file.type not in ALIASED_TYPES or first != alias:
        return None
    return replace(file, subfolder=rest)


def show_output(output: Any, alias: str) -> Any:
    """An output of a node (``executed`` or ``/history``) with every file in it shown under the alias."""
    if not alias:
        return output
    if isinstance(output, list):
        return [show_output(item, alias) for item in output]
    if not isinstance(output, Mapping):
        return output
    file = FileName.of(output) if "type" in output or "subfolder" in output else None
    if file is None:
        return {key: show_output(value, alias) for key, value in output.items()}
    return {**output, "subfolder": shown(file, alias).subfolder}


def files_in(output: Any) -> Iterator[FileName]:
    """Every file that an output of a node, or several outputs, name."""
    if isinstance(output, list):
        for item in output:
            yield from files_in(item)
    elif isinstance(output, Mapping):
        file = FileName.of(output) if "type" in output or "subfolder" in output else None
        if file is not None:
            yield file
        else:
            for value in output.values():
                yield from files_in(value)
