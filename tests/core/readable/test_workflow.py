"""A prompt as text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.readable.workflow import MAX_LINES, nodes_of, read_workflow

NODES: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 20,
            "model": ["4", 0],
            "positive": ["6", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 2}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a\nlake " + "x" * 100, "clip": ["4", 1]}},
    "7": {"class_type": "LoadImage", "inputs": {"image": "a.png [output]"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "extra": ["8", 0]}},
}


def test_a_prompt_says_what_it_needs_and_shows_its_graph_from_the_outputs_down() -> None:
    text = read_workflow(
        {"prompt": NODES, "client_id": "tab", "front": True, "extra_data": {"key": "SECRET"}}
    )
    assert text.splitlines() == [
        "client_id: tab",
        "front: True",
        "nodes: 6 (KSampler, CheckpointLoaderSimple, EmptyLatentImage, CLIPTextEncode, LoadImage, SaveImage)",
        "models: v1-5.safetensors",
        "inputs: a.png [output]",
        "seeds: 42",
        "sizes: 512x768 x2",
        "",
        "7 LoadImage  image=a.png [output]",
        "9 SaveImage",
        "  images <- 3 KSampler  seed=42  steps=20",
        "    model <- 4 CheckpointLoaderSimple  ckpt_name=v1-5.safetensors",
        "    positive <- 6 CLIPTextEncode  text=a lake " + "x" * 72 + "…",
        "      clip <- 4 CheckpointLoaderSimple (see above)",
        "    latent_image <- 5 EmptyLatentImage  width=512  height=768  batch_size=2",
        "  extra <- 8 (not there)",
    ]


def test_a_workflow_alone_is_one_too() -> None:
    assert read_workflow({"1": {"class_type": "A"}, "2": {"class_type": "A", "inputs": None}}) == (
        "nodes: 2 (A x2)\n\n1 A\n2 A"
    )


def test_a_cycle_and_a_chain_of_thousands_end() -> None:
    assert read_workflow(
        {name: {"class_type": "A", "inputs": {"x": [name, 0]}} for name in "ab"}
    ).splitlines()[2:] == [
        "a A",
        "  x <- a A (see above)",
        "b A",
        "  x <- b A (see above)",
    ]
    chain = {str(n): {"class_type": "A", "inputs": {"x": [str(n + 1), 0]}} for n in range(5000)}
    lines = read_workflow(chain).splitlines()
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == f"… {5000 + 1 + 2 - MAX_LINES} more lines"


@pytest.mark.parametrize(
    "document", [None, [], {}, {"prompt": {}}, {"a": 1}, {"prompt": {"1": {"class_type": 2}}}]
)
def test_anything_else_is_no_prompt(document: Any) -> None:
    assert nodes_of(document) is None
    with pytest.raises(ValueError, match="no prompt"):
        read_workflow(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.text(max_size=3), st.fixed_dictionaries({"class_type": st.text(), "inputs": JSON}), min_size=1
    )
)
def test_whatever_the_inputs_are_each_node_is_shown(nodes: dict[str, Any]) -> None:
    text = read_workflow({"prompt": nodes})
    assert text.startswith(f"nodes: {len(nodes)} ")
