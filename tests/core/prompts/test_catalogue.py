"""What a prompt would miss on a server, by that server's /object_info."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.prompts.catalogue import Catalogue, Missing


def described(
    required: dict[str, Any] | None = None, *, is_output: bool = False, **more: Any
) -> dict[str, Any]:
    """One class as ComfyUI describes it."""
    groups = {"required": required or {}, **more}
    return {"input": groups, "output_node": is_output, "output": [], "name": "", "category": "sd"}


SAMPLERS = ["euler", "dpmpp_2m"]
OBJECT_INFO: dict[str, Any] = {
    "CheckpointLoaderSimple": described({"ckpt_name": [["sd15.safetensors"], {"tooltip": "The model."}]}),
    "UpscaleModelLoader": described({"model_name": ["COMBO", {"multiselect": False, "options": ["4x.pth"]}]}),
    "KSampler": described(
        {"model": ["MODEL"], "seed": ["INT", {"min": 0}], "sampler_name": [SAMPLERS]},
        optional={"rounds": [[1, 2, 3]]},
        hidden={"unique_id": "UNIQUE_ID"},
    ),
    "LoadImage": described({"image": [["example.png"], {"image_upload": True}]}),
    "LoadVideo": described({"file": ["COMBO", {"options": [], "video_upload": True}]}),
    "LoadImageOutput": described({"image": ["COMBO", {"image_folder": "output", "remote": {"route": "/x"}}]}),
    "SaveImage": described({"images": ["IMAGE"]}, is_output=True),
}
CATALOGUE = Catalogue.parse(OBJECT_INFO)


def graph(**nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A body of POST /prompt; each node is its class and inputs."""
    return {
        "prompt": {
            id_: {"class_type": class_type, "inputs": inputs, "_meta": {"title": "any"}}
            for id_, (class_type, inputs) in nodes.items()
        }
    }


def painting(ckpt_name: Any = "sd15.safetensors", sampler_name: Any = "euler") -> dict[str, Any]:
    return graph(
        load=("CheckpointLoaderSimple", {"ckpt_name": ckpt_name}),
        sample=("KSampler", {"model": ["load", 0], "seed": 1, "sampler_name": sampler_name}),
        save=("SaveImage", {"images": ["sample", 0]}),
    )


def test_a_prompt_that_can_run_misses_nothing() -> None:
    assert CATALOGUE.missing(painting()) == []


@pytest.mark.parametrize(
    ("document", "missing"),
    [
        pytest.param(
            painting(ckpt_name="sdxl.safetensors"),
            [Missing("model", "sdxl.safetensors", "CheckpointLoaderSimple.ckpt_name")],
            id="a model in the classic form",
        ),
        pytest.param(
            graph(
                load=("UpscaleModelLoader", {"model_name": "8x.pth"}),
                save=("SaveImage", {"images": ["load", 0]}),
            ),
            [Missing("model", "8x.pth", "UpscaleModelLoader.model_name")],
            id="a model in the newer form",
        ),
        pytest.param(
            graph(paint=("CustomPainter", {}), save=("SaveImage", {"images": ["paint", 0]})),
            [Missing("node", "CustomPainter")],
            id="a node class",
        ),
        pytest.param(
            graph(alone=("CustomPainter", {}), other=("CustomPainter", {}), save=("SaveImage", {})),
            [Missing("node", "CustomPainter")],
            id="a node class that no output needs: ComfyUI refuses it all the same, and it is told once",
        ),
        pytest.param(
            graph(
                load=("CheckpointLoaderSimple", {"ckpt_name": "x"}),
                save=("CustomSaver", {"images": ["load", 0]}),
            ),
            [Missing("node", "CustomSaver"), Missing("model", "x", "CheckpointLoaderSimple.ckpt_name")],
            id="behind an output of an unknown class",
        ),
        pytest.param(
            painting(sampler_name={"__value__": "custom"}),
            [Missing("model", "custom", "KSampler.sampler_name")],
            id="a wrapped value",
        ),
        pytest.param(
            painting(sampler_name={"__value__": ["euler", "custom"]}),
            [Missing("model", "custom", "KSampler.sampler_name")],
            id="several values",
        ),
        pytest.param(
            painting(sampler_name=None), [Missing("model", "None", "KSampler.sampler_name")], id="null"
        ),
    ],
)
def test_what_a_prompt_misses_is_told(document: dict[str, Any], missing: list[Missing]) -> None:
    assert CATALOGUE.missing(document) == missing


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(painting(ckpt_name=["other", 0]), id="a link is no value"),
        pytest.param(
            graph(load=("LoadImage", {"image": "mine.png"}), save=("SaveImage", {"images": ["load", 0]})),
            id="an upload is brought",
        ),
        pytest.param(
            graph(load=("LoadVideo", {"file": "mine.mp4"}), save=("SaveImage", {"images": ["load", 0]})),
            id="an upload in the newer form is brought",
        ),
        pytest.param(
            graph(
                load=("LoadImageOutput", {"image": "a.png [output]"}),
                save=("SaveImage", {"images": ["load", 0]}),
            ),
            id="a list that is fetched from elsewhere is unknown",
        ),
        pytest.param(
            graph(
                alone=("CheckpointLoaderSimple", {"ckpt_name": "sdxl.safetensors"}), save=("SaveImage", {})
            ),
            id="a value that no output needs is not judged",
        ),
        pytest.param(
            {
                **graph(
                    load=("CheckpointLoaderSimple", {"ckpt_name": "sdxl.safetensors"}),
                    big=("SaveImage", {"images": ["load", 0]}),
                    small=("SaveImage", {}),
                ),
                "partial_execution_targets": ["small"],
            },
            id="a value that only another target needs is not judged",
        ),
        pytest.param(
            graph(x=("KSampler", {"rounds": 2}), save=("SaveImage", {"a": ["x", 0]})), id="a number"
        ),
        pytest.param(
            graph(x=("KSampler", {}), save=("SaveImage", {"a": ["x", 0]})), id="an input that is not given"
        ),
    ],
)
def test_what_the_list_does_not_decide_is_no_reason(document: dict[str, Any]) -> None:
    assert CATALOGUE.missing(document) == []


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["prompt", "class_type", "inputs", "ckpt_name", "partial_execution_targets"]), inner)))  # fmt: skip
def test_a_body_of_any_shape_is_judged(body: Any) -> None:
    document = body if isinstance(body, dict) else {"prompt": body}
    for missing in CATALOGUE.missing(document):
        assert str(missing).isprintable()


def test_a_prompt_with_a_circle_is_judged() -> None:
    document = graph(
        a=("SaveImage", {"x": ["b", 0]}), b=("KSampler", {"sampler_name": "none", "x": ["a", 0]})
    )
    assert CATALOGUE.missing(document) == [Missing("model", "none", "KSampler.sampler_name")]


def test_upload_inputs_are_known_by_their_flags() -> None:
    assert CATALOGUE.upload_inputs("LoadImage") == {"image"}
    assert CATALOGUE.upload_inputs("LoadVideo") == {"file"}
    assert CATALOGUE.upload_inputs("LoadImageOutput") == {"image"}
    assert CATALOGUE.upload_inputs("KSampler") == frozenset()
    assert CATALOGUE.upload_inputs("Unheard") == frozenset()
    assert CATALOGUE.knows("KSampler")
    assert not CATALOGUE.knows("Unheard")


def test_differences_name_what_the_other_server_has_and_this_one_lacks() -> None:
    duty = Catalogue.parse(
        {
            **OBJECT_INFO,
            "CheckpointLoader": described({"ckpt_name": [["sd15.safetensors", "sdxl.safetensors"]]}),
            "CheckpointLoaderSimple": described({"ckpt_name": [["sd15.safetensors", "sdxl.safetensors"]]}),
            "LoadImage": described({"image": [["mine.png"], {"image_upload": True}]}),
        }
    )
    assert CATALOGUE.differences(duty) == [
        Missing("node", "CheckpointLoader"),
        Missing("model", "sdxl.safetensors", "CheckpointLoaderSimple.ckpt_name"),
    ]
    assert duty.differences(CATALOGUE) == []
    assert duty.differences(duty) == []


def test_a_model_that_many_classes_list_is_told_once() -> None:
    names = [f"Loader{number}" for number in range(30)]
    ours = Catalogue.parse({name: described({"model": [["a"]]}) for name in names})
    theirs = Catalogue.parse({name: described({"model": [["a", "b"]]}) for name in names})
    assert ours.differences(theirs) == [Missing("model", "b", "Loader0.model")]


def test_a_name_from_a_client_cannot_write_lines_of_its_own_into_the_log() -> None:
    shown = str(Missing("node", "x\nERROR all is lost \ud800" + "y" * 500))
    assert shown.isprintable()
    assert len(shown) < 200
    assert str(Missing("model", "a.safetensors", "Loader.name")) == "model 'a.safetensors' (Loader.name)"


def test_bytes_and_document_give_the_same() -> None:
    read = Catalogue.read(json.dumps(OBJECT_INFO).encode())
    assert read.classes == CATALOGUE.classes
    assert len(read) == len(OBJECT_INFO)


@pytest.mark.parametrize(
    "document",
    [{}, {"detail": {"reason": "not found"}}, {"exec_info": {"queue_remaining": 0}}, {"KSampler": None}],
)
def test_what_describes_no_node_class_is_no_catalogue(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="node classes"):
        Catalogue.parse(document)


def test_equal_lists_are_kept_once() -> None:
    names = [f"{number}.safetensors" for number in range(1000)]
    catalogue = Catalogue.read(
        json.dumps({f"Loader{number}": described({"model": [names]}) for number in range(50)}).encode()
    )
    assert len({id(found.choices["model"]) for found in catalogue.classes.values()}) == 1
