"""What is installed, as arguments of a command line."""

import argparse

from simulators.comfyui.installation import MODELS, Installation
from simulators.comfyui.nodes import NODE_CLASSES


def add_installation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--newer", action="store_true", help="a core after 0.3.64, with /api/jobs")
    parser.add_argument(
        "--combo-objects", action="store_true", help='lists of choices as ["COMBO", {"options": […]}]'
    )
    parser.add_argument(
        "--without-node", action="append", default=[], metavar="CLASS", help="may be given several times"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FOLDER/NAME",
        help="these models and no others; without it there are a few",
    )


def installation(options: argparse.Namespace) -> Installation:
    """Raises ValueError for a model without a folder and for an unknown node class."""
    if unknown := set(options.without_node) - NODE_CLASSES.keys():
        raise ValueError(f"--without-node: no such class: {', '.join(sorted(unknown))}")
    models: dict[str, tuple[str, ...]] = {}
    for told in options.model:
        folder, _, name = told.partition("/")
        if not folder or not name:
            raise ValueError(f"--model {told}: FOLDER/NAME is meant")
        models[folder] = (*models.get(folder, ()), name)
    return Installation(
        newer=options.newer,
        combo_objects=options.combo_objects,
        without=frozenset(options.without_node),
        models=models or MODELS,
    )
