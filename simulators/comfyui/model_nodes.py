"""Nodes that need a model: what a server lacks, its prompts cannot use.

A model is its name here, and a chain of loaders a text; SimPaint makes a colour of it, so that a picture
tells which models it was painted with.
"""

from PIL import Image

from simulators.comfyui.node_class import Inputs, NodeClass, Result, Work, fixed
from simulators.comfyui.pictures import colour_of


async def _load_checkpoint(work: Work, inputs: Inputs) -> Result:
    await work.step()
    name = inputs["ckpt_name"]
    return Result((f"model of {name}", f"clip of {name}", f"vae of {name}"))


async def _load_lora(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return Result((f"{inputs['model']} with {inputs['lora_name']} at {inputs['strength_model']}",))


async def _paint(work: Work, inputs: Inputs) -> Result:
    await work.step()
    return Result(([Image.new("RGB", (64, 64), painted(inputs["model"], inputs["seed"]))],))


def painted(model: str, seed: int) -> tuple[int, int, int]:
    """The colour of SimPaint's picture; `model` is "model of NAME" for a checkpoint alone."""
    return colour_of(f"{model}, {seed}")


CLASSES = (
    NodeClass(
        "CheckpointLoaderSimple",
        "loaders",
        lambda shelves: {
            "required": {
                "ckpt_name": (
                    shelves.models("checkpoints"),
                    {"tooltip": "The name of the checkpoint (model) to load."},
                )
            }
        },
        ("MODEL", "CLIP", "VAE"),
        _load_checkpoint,
        display_name="Load Checkpoint",
        description="Loads a diffusion model checkpoint, diffusion models are used to denoise latents.",
    ),
    NodeClass(
        "LoraLoaderModelOnly",
        "loaders",
        lambda shelves: {
            "required": {
                "model": ("MODEL", {}),
                "lora_name": (shelves.models("loras"), {}),
                "strength_model": ("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}),
            }
        },
        ("MODEL",),
        _load_lora,
    ),
    NodeClass(
        "SimPaint",
        "simulator",
        fixed({"model": ("MODEL", {}), "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})}),
        ("IMAGE",),
        _paint,
        description="A picture in a colour made of the model and the seed.",
    ),
)
