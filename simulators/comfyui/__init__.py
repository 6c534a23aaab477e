"""A stand-in for ComfyUI 0.3.64 without torch: its routes, its queue, its socket protocol and their quirks.

    sim = ComfySimulator(name="duty")
    async with serve(sim) as served:
        ...  # served.url is http://127.0.0.1:PORT/

`python -m simulators.comfyui --port 3000` runs one alone.
"""

from simulators.comfyui.big_file import big_file_blocks, big_file_sha256
from simulators.comfyui.installation import Installation
from simulators.comfyui.mood import Mood
from simulators.comfyui.serving import Served, serve
from simulators.comfyui.simulator import ComfySimulator

__all__ = ["ComfySimulator", "Installation", "Mood", "Served", "big_file_blocks", "big_file_sha256", "serve"]
