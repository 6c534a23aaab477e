"""What the fields of ComfyUI-Manager's model-list.json mean (read in its `manager_server.py`, `get_model_dir`)."""

import re

# Its `model_dir_name_map`: the folder of ComfyUI for a `type`, when `save_path` is "default".
FOLDERS = {
    "checkpoints": "checkpoints",
    "checkpoint": "checkpoints",
    "unclip": "checkpoints",
    "text_encoders": "text_encoders",
    "clip": "text_encoders",
    "vae": "vae",
    "lora": "loras",
    "t2i-adapter": "controlnet",
    "t2i-style": "controlnet",
    "controlnet": "controlnet",
    "clip_vision": "clip_vision",
    "gligen": "gligen",
    "upscale": "upscale_models",
    "embedding": "embeddings",
    "embeddings": "embeddings",
    "unet": "diffusion_models",
    "diffusion_model": "diffusion_models",
}
# For every other type.
ELSEWHERE = "etc"
WHOLE_REPOSITORY = "<huggingface>"

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)i?B?\s*", re.IGNORECASE)
_REPOSITORY = re.compile(r"(?:https://huggingface\.co/)?([\w.-]+/[\w.-]+)/?")


def folder(save_path: str, type_: str) -> str | None:
    """Below the models folder, or None for what belongs into a custom node's folder.

    Not judged here: whether the path is safe (`model_sync.names`).
    """
    if save_path == "default":
        return FOLDERS.get(type_.lower(), ELSEWHERE)
    if save_path.split("/", maxsplit=1)[0] == "custom_nodes":
        return None
    return save_path.removesuffix("/")


def repository(filename: str, url: str) -> str | None:
    """ "owner/name" where the entry stands for a whole Hugging Face repository, None where it is a file."""
    if filename != WHOLE_REPOSITORY:
        return None
    found = _REPOSITORY.fullmatch(url)
    return found.group(1) if found else None


def rounded_size_bytes(size: str) -> int | None:
    """ "4.27GB" is 4270000000. None for a text that is no size."""
    found = _SIZE.fullmatch(size)
    return round(float(found.group(1)) * _UNITS[found.group(2).upper()]) if found else None
