"""Nodes that write files into the output or the temp folder."""

from pathlib import Path
from typing import IO, Any

from simulators.comfyui.big_file import big_file_blocks
from simulators.comfyui.node_class import IMAGE, Images, Inputs, NodeClass, Result, Work, fixed
from simulators.comfyui.numbering import series
from simulators.comfyui.pictures import save_numbered

BLOCKS_PER_STEP = 64
_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


async def _save_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return await _saved(work, inputs["images"], "output", inputs["filename_prefix"])


async def _preview_image(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return await _saved(work, inputs["images"], "temp", f"ComfyUI{work.temp_prefix}")


async def _saved(work: Work, images: Images, kind: str, prefix: str) -> Result:
    root = work.folders.output if kind == "output" else work.folders.temp
    saved = await work.folders.write(save_numbered, images, root, prefix, work.server, work.metadata)
    ui = {"images": [{"filename": name, "subfolder": subfolder, "type": kind} for name, subfolder in saved]}
    return Result(ui=ui)


async def _save_bytes(work: Work, inputs: Inputs) -> Result:
    size_bytes = inputs["size_bytes"]
    place = await work.folders.write(series, work.folders.output, inputs["filename_prefix"])
    filename = place.filename(0, ".mp4")
    blocks = big_file_blocks(work.server, inputs["seed"], size_bytes)
    written_bytes = 0
    with await work.folders.write(_opened, place.folder / filename) as file:
        while True:
            await work.step()
            count_bytes = await work.folders.write(_write_some, file, blocks)
            if not count_bytes:
                break
            written_bytes += count_bytes
            work.progress(written_bytes, size_bytes)
    shown: dict[str, Any] = {"filename": filename, "subfolder": place.subfolder, "type": "output"}
    return Result(ui={"images": [shown], "animated": [True]})


def _opened(path: Path) -> IO[bytes]:
    return path.open("wb")


def _write_some(file: IO[bytes], blocks: Any) -> int:
    """Writes the next blocks; returns how many bytes, 0 at the end."""
    return sum(file.write(block) for _, block in zip(range(BLOCKS_PER_STEP), blocks, strict=False))


CLASSES = (
    NodeClass(
        "SaveImage",
        "image",
        fixed({"images": IMAGE, "filename_prefix": ("STRING", {"default": "ComfyUI"})}),
        (),
        _save_image,
        is_output=True,
        display_name="Save Image",
        description="Saves the input images to your ComfyUI output directory.",
        hidden=_HIDDEN,
    ),
    NodeClass(
        "PreviewImage",
        "image",
        fixed({"images": IMAGE}),
        (),
        _preview_image,
        is_output=True,
        display_name="Preview Image",
        description="Saves the input images to your ComfyUI output directory.",
        hidden=_HIDDEN,
    ),
    NodeClass(
        "SimSaveBytes",
        "simulator",
        fixed(
            {
                "size_bytes": ("INT", {"default": 1_000_000, "min": 0, "max": 2**40}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
                "filename_prefix": ("STRING", {"default": "video/ComfyUI"}),
            }
        ),
        (),
        _save_bytes,
        is_output=True,
        description="Writes a file of any size, piece by piece; big_file.py knows its content.",
    ),
)
