"""ComfyUI's own WebSocket example, with another address and a graph that needs no model."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

SHOW = """
import base64
print(json.dumps({node: [base64.b64encode(data).decode() for data in images[node]] for node in images}))
"""


def example_for(address: str, *, colour: int, prefix: str) -> str:
    """The script of the checkout that ``COMFYUI_DIR`` names; its last line prints the pictures of node 6.

    It sets a text in node 6 and a seed in node 3: nodes ignore inputs that they do not know.
    """
    checkout = os.environ.get("COMFYUI_DIR", "")
    if not checkout:
        pytest.skip("COMFYUI_DIR names no checkout of ComfyUI")
    source = (Path(checkout) / "script_examples/websockets_api_example.py").read_text()
    assert source.count('"127.0.0.1:8188"') == 1
    assert source.count('"""') == 2
    before, _, after = source.replace('"127.0.0.1:8188"', json.dumps(address)).split('"""')
    size = {"width": 64, "height": 48, "batch_size": 1}
    nodes: dict[str, Any] = {
        "3": {"class_type": "EmptyImage", "inputs": {**size, "color": colour}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }
    return f'{before}"""{json.dumps(nodes)}"""{after}{SHOW}'


async def run_script(source: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a Python program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate(source.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
