"""History entries of prompts that ran on pods, with only those files that still open."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from comfy_gateway.core.files.files import FileName, files_in
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.results.history import plain_number
from comfy_gateway.core.vault.vault import Address, address_of

POD_ALIAS: Final = "private-"
"""What the alias of every pod begins with."""


def pod_files_in(entry: Mapping[str, Any]) -> Iterator[tuple[FileName, Address]]:
    """The files of pods that an entry in its shown form names, each with what its name says."""
    for file in files_in(entry.get("outputs")):
        address = address_of(file)
        if address is not None and address.alias.startswith(POD_ALIAS):
            yield file, address


def with_files(entry: Mapping[str, Any], decide: Callable[[FileName], FileName | None]) -> dict[str, Any]:
    """The entry with each file under the name that ``decide`` says, and without those for which it says None."""
    return {**entry, "outputs": _decided(entry.get("outputs", {}), decide)}


def entry_of_named(record: PromptRecord, files: Iterable[FileName]) -> dict[str, Any]:
    """An entry in its shown form for a prompt that has ended and whose server's own entry nobody has read.

    The graph is not known any more; the pictures themselves carry it. ``files`` are shown names.
    """
    is_done = record.outcome is Outcome.DONE
    verdict = {
        Outcome.DONE: "execution_success",
        Outcome.INTERRUPTED: "execution_interrupted",
    }.get(record.outcome, "execution_error")
    messages = [
        [kind, {"prompt_id": record.prompt_id, "timestamp": int(at.timestamp() * 1000)}]
        for kind, at in (("execution_start", record.started_at), (verdict, record.ended_at))
        if at is not None
    ]
    named = [{"filename": file.filename, "subfolder": file.subfolder, "type": file.type} for file in files]
    return {
        "prompt": [plain_number(record.number), record.prompt_id, {}, {"client_id": record.sid}, []],
        "outputs": {"0": {"images": named}} if named else {},
        "status": {
            "status_str": "success" if is_done else "error",
            "completed": is_done,
            "messages": messages,
        },
        "meta": {},
    }


def _decided(output: Any, decide: Callable[[FileName], FileName | None]) -> Any:
    if isinstance(output, list):
        return [_decided(item, decide) for item in output if not _is_left_out(item, decide)]
    if not isinstance(output, Mapping):
        return output
    file = _file_of(output)
    if file is None:
        return {
            key: _decided(value, decide) for key, value in output.items() if not _is_left_out(value, decide)
        }
    name = decide(file)
    return output if name is None or name == file else {**output, "subfolder": name.subfolder}


def _is_left_out(item: Any, decide: Callable[[FileName], FileName | None]) -> bool:
    file = _file_of(item) if isinstance(item, Mapping) else None
    return file is not None and decide(file) is None


def _file_of(output: Mapping[str, Any]) -> FileName | None:
    """As ``core.files.files`` recognises one."""
    return FileName.of(output) if "type" in output or "subfolder" in output else None
