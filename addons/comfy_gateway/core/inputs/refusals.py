"""What is said when an input file cannot be kept or brought to where a prompt is to run."""

from typing import Final

from comfy_gateway.core.requests.refusals import Refusal

DISK_FULL: Final = Refusal(
    507,
    "gateway_storage",
    "The gateway cannot keep this file: its disk is full or broken.",
    "Nothing was changed on the ComfyUI servers. GATEWAY_STATE_DIR needs room.",
    retry_after_s=60,
)
NO_FORM: Final = Refusal(
    400, "no_upload", "An upload is a multipart/form-data body with a field 'image' that is a file."
)


TOO_MANY_PARTS: Final = Refusal(
    400, "no_upload", "The form of an upload has more parts than an upload can need.", "100 are read at most."
)
IMAGE_IS_TEXT: Final = Refusal(
    400, "no_upload", "The field 'image' of an upload must be a file: it came without a filename."
)
BAD_UPLOAD_TYPE: Final = Refusal(
    400, "bad_upload_type", "The field 'type' of an upload must be input, output or temp."
)
BAD_UPLOAD_NAME: Final = Refusal(
    400,
    "bad_upload_name",
    "The file of an upload must have a name in its folder.",
    "The filename of 'image' and the field 'subfolder' may hold no '..', no backslash, no control characters, no"
    " slash at the beginning, and no part that is longer than 255 bytes.",
)
BAD_ORIGINAL_REF: Final = Refusal(
    400,
    "bad_original_ref",
    "The field 'original_ref' of a mask must name the picture that it is for.",
    'As JSON: {"filename": "a.png", "subfolder": "", "type": "input"}, where type is input, output or temp.',
)

INPUTS_UNKNOWN: Final = Refusal(
    503,
    "inputs_unknown",
    "The server that runs this prompt does not tell which of its inputs are files.",
    "It is asked for /object_info before it is sent prompts.",
    retry_after_s=5,
)
OPERATORS_FOLDER: Final = Refusal(
    403, "operators_only", "Only operators of this gateway write in the folder that everybody reads."
)


def input_unavailable(name: str, why: str) -> Refusal:
    """The file exists, as far as is known, but does not get there now."""
    return Refusal(
        503,
        "input_unavailable",
        f"The input file {name!r} cannot be brought to the server that runs this prompt.",
        why,
        retry_after_s=5,
    )


def no_such_output(name: str) -> Refusal:
    """Not there, or another's, in ComfyUI's own words for the former."""
    return Refusal(
        400,
        "prompt_outputs_failed_validation",
        "Prompt outputs failed validation",
        f"Invalid image file: {name}",
    )


def input_too_large(name: str, why: str) -> Refusal:
    """The file is larger than the server takes."""
    return Refusal(
        413,
        "input_too_large",
        f"The input file {name!r} is too large for the server that runs this prompt.",
        why,
    )


def upload_too_large(most_bytes: int) -> Refusal:
    """The upload is larger than the gateway takes."""
    return Refusal(
        413,
        "upload_too_large",
        f"An upload may have at most {most_bytes // 1024**2} MiB (GATEWAY_MAX_UPLOAD_MB).",
    )
