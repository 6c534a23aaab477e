"""Nodes of our own for tests.

`SimSleep` works for a while and shows progress and previews; like a sampler, an unchanged one is answered from
the cache: give another `seed` to make it work again. `SimFail` raises. `SimShow` makes a picture of a sound or
a film, in a colour made of the file's bytes.
"""

from PIL import Image

from simulators.comfyui.loading_nodes import Recording
from simulators.comfyui.node_class import IMAGE, Inputs, NodeClass, Result, Work, fixed
from simulators.comfyui.pictures import colour_of


async def _sim_sleep(work: Work, inputs: Inputs) -> Result:
    steps = inputs["steps"]
    images = inputs.get("image") or [Image.new("RGB", (64, 64), (40, 40, 60))]
    for step in range(1, steps + 1):
        await work.step(inputs["seconds"] / steps)
        fading = Image.blend(Image.new("RGB", images[0].size), images[0].convert("RGB"), step / steps)
        work.progress(step, steps, fading)
    return Result((images,))


async def _sim_fail(work: Work, inputs: Inputs) -> Result:
    await work.step()
    raise RuntimeError(inputs.get("message", "this node always fails"))


async def _sim_show(work: Work, inputs: Inputs) -> Result:
    await work.step()
    recording: Recording = inputs["file"]
    return Result(([Image.new("RGB", (64, 64), colour_of(recording.sha256))],))


CLASSES = (
    NodeClass(
        "SimSleep",
        "simulator",
        fixed(
            {
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 86400.0}),
                "steps": ("INT", {"default": 4, "min": 1, "max": 10_000}),
            },
            {"image": IMAGE, "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})},
        ),
        ("IMAGE",),
        _sim_sleep,
        is_output=True,
        description="Works for so many seconds, with progress and previews.",
    ),
    NodeClass(
        "SimFail",
        "simulator",
        fixed({}, {"message": ("STRING", {"default": "this node always fails"}), "image": IMAGE}),
        ("IMAGE",),
        _sim_fail,
        is_output=True,
        description="Raises a RuntimeError.",
    ),
    NodeClass(
        "SimShow",
        "simulator",
        fixed({"file": ("AUDIO,VIDEO", {})}),
        ("IMAGE",),
        _sim_show,
        description="A picture in a colour made of the bytes of a sound or a film.",
    ),
)
