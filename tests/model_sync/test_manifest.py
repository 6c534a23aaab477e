"""What a manifest may say, and how faults are told."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from model_sync import manifest
from model_sync.errors import BadManifest
from tests.model_sync.stand import model, parsed, write_manifest

EXAMPLE = Path(manifest.__file__).parent / "manifest.json"
URL = "https://example.org/x"
MANAGER = {
    "name": "v1-5-pruned-emaonly.ckpt",
    "type": "checkpoint",
    "base": "SD1.5",
    "save_path": "default",
    "description": "Stable Diffusion 1.5 base model",
    "reference": "https://huggingface.co/runwayml/stable-diffusion-v1-5",
    "filename": "v1-5-pruned-emaonly.ckpt",
    "url": "https://huggingface.co/runwayml/stable-diffusion-v1-5/resolve/main/v1-5-pruned-emaonly.ckpt",
    "size": "4.27GB",
}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(manifest.SCHEMA.read_text()))


def test_the_example_is_valid_and_every_file_of_its_base_has_a_published_checksum() -> None:
    entries = manifest.load(EXAMPLE).selected(frozenset({"base"}), everything=False, optional=False)
    assert len(entries) >= 3
    assert all(entry.sha256 and entry.size_bytes for entry in entries)


def test_an_entry_of_the_design_is_read() -> None:
    document = {
        "name": "X",
        "path": "checkpoints/x.safetensors",
        "urls": [URL, "http://mirror.example/x"],
        "sha256": "AB" * 32,
        "size_bytes": 1,
        "group": "base",
        "optional": False,
    }
    (entry,) = parsed(document)
    assert (entry.name, entry.path, entry.size_bytes) == ("X", "checkpoints/x.safetensors", 1)
    assert entry.urls == (URL, "http://mirror.example/x")
    assert entry.sha256 == "ab" * 32


def test_checksum_size_group_and_optional_may_be_left_out() -> None:
    (entry,) = parsed({"path": "a/x.pt", "urls": [URL]})
    assert (entry.name, entry.sha256, entry.size_bytes, entry.group, entry.optional) == (
        "x.pt",
        None,
        None,
        "base",
        False,
    )


def test_an_entry_of_comfyui_manager_is_read_as_it_is() -> None:
    (entry,) = parsed(MANAGER)
    assert entry.path == "checkpoints/v1-5-pruned-emaonly.ckpt"
    assert entry.urls == (MANAGER["url"],)
    assert (entry.size_bytes, entry.about_bytes) == (None, 4_270_000_000)
    assert entry.labels == {"base", "SD1.5"}


@pytest.mark.parametrize(
    ("save_path", "type_", "folder"),
    [
        ("default", "VAE", "vae"),
        ("default", "lora", "loras"),
        ("default", "T2I-Adapter", "controlnet"),
        ("default", "upscale", "upscale_models"),
        ("default", "diffusion_model", "diffusion_models"),
        ("default", "insightface", "etc"),
        ("vae_approx", "TAESD", "vae_approx"),
        ("checkpoints/SDXL-TURBO", "checkpoints", "checkpoints/SDXL-TURBO"),
    ],
)
def test_managers_folders_are_comfyuis(save_path: str, type_: str, folder: str) -> None:
    (entry,) = parsed({**MANAGER, "save_path": save_path, "type": type_})
    assert entry.path == f"{folder}/v1-5-pruned-emaonly.ckpt"


def test_a_whole_repository_of_managers_list_is_kept_as_one() -> None:
    (entry,) = parsed({**MANAGER, "filename": "<huggingface>", "url": "owner/name", "save_path": "diffusers"})
    assert (entry.repository, entry.path, entry.urls) == ("owner/name", "diffusers/name", ())


def test_an_entry_for_a_custom_nodes_folder_is_set_aside_and_the_rest_is_read() -> None:
    found = manifest.parsed({"models": [{**MANAGER, "save_path": "custom_nodes/x/models"}, MANAGER]})
    assert len(found.entries) == 1
    assert "models folder" in found.set_aside[0]


def test_the_whole_list_of_manager_without_version_is_a_manifest(tmp_path: Path) -> None:
    file = tmp_path / "model-list.json"
    file.write_text(json.dumps({"models": [MANAGER]}))
    assert len(manifest.load(file).entries) == 1


FAULTS: list[tuple[str, Any, str]] = [
    ("no list", {"version": 1}, "'models' is a required property"),
    ("another version", {"version": 2, "models": []}, "1 was expected"),
    ("a list at the top", [], "not of type 'object'"),
    ("no addresses", {"models": [{"path": "a/x"}]}, "$.models[0]: 'urls' is a required property"),
    ("an empty list of addresses", {"models": [{"path": "a/x", "urls": []}]}, "$.models[0].urls"),
    ("a misspelled field", {"models": [{"path": "a/x", "urls": [URL], "sha_256": "x"}]}, "sha_256"),
    ("half a checksum", {"models": [{"path": "a/x", "urls": [URL], "sha256": "abc"}]}, "$.models[0].sha256"),
    (
        "a size in words",
        {"models": [{"path": "a/x", "urls": [URL], "size_bytes": "4GB"}]},
        "$.models[0].size_bytes",
    ),
    ("another scheme", {"models": [{"path": "a/x", "urls": ["file:///etc/passwd"]}]}, "$.models[0].urls[0]"),
    ("a password", {"models": [{"path": "a/x", "urls": ["https://u:geheim@h/x"]}]}, "user or a password"),
    ("no host", {"models": [{"path": "a/x", "urls": ["https:///x"]}]}, "$.models[0]"),
    ("neither kind of entry", {"models": [{"name": "x"}]}, "$.models[0]: 'filename' is a required property"),
    ("a way out", {"models": [{"path": "../x", "urls": [URL]}]}, "$.models[0]: path '../x'"),
    ("a way out in manager's", {"models": [{**MANAGER, "save_path": "../../etc"}]}, "'..'"),
    ("a way out in a name", {"models": [{**MANAGER, "filename": "../x"}]}, "'..'"),
    ("one file twice", {"models": [model("A/x", URL), model("a/X", URL)]}, "is also that of"),
    ("a file as a folder", {"models": [model("a", URL), model("a/x", URL)]}, "in a folder that is the file"),
]


@pytest.mark.parametrize(
    ("document", "told"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_a_fault_is_told_with_its_place(document: Any, told: str, tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(document))
    with pytest.raises(BadManifest) as caught:
        manifest.load(file)
    assert told in "\n".join(caught.value.faults)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", "\xff"])
def test_a_file_that_is_missing_or_no_json_is_told(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadManifest, match=r"manifest\.json"):
        manifest.load(file)


def test_groups_select_and_required_files_come_first(tmp_path: Path) -> None:
    listed = manifest.load(
        write_manifest(
            tmp_path / "m.json",
            model("a/1", URL, optional=True),
            model("a/2", URL),
            model("a/3", URL, group="sdxl"),
            {**MANAGER, "filename": "4"},
        )
    )

    def paths(*groups: str, everything: bool = False, optional: bool = False) -> list[str]:
        return [
            entry.path
            for entry in listed.selected(frozenset(groups), everything=everything, optional=optional)
        ]

    assert paths("base") == ["a/2", "checkpoints/4"]
    assert paths("base", optional=True) == ["a/2", "checkpoints/4", "a/1"]
    assert paths("sdxl") == ["a/3"]
    assert paths("SD1.5") == ["checkpoints/4"]
    assert paths(everything=True) == ["a/2", "a/3", "checkpoints/4"]
    with pytest.raises(BadManifest, match=r"there is SD1\.5, base, sdxl"):
        paths("flux")
