"""Addresses of kept files."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.vault.vault import (
    Address,
    StoredFile,
    address_of,
    file_key,
    is_storable,
    modified_ns_of,
    shown_name,
    size_of,
    usable_etag,
    version_named_by,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
STORED = StoredFile(
    user_key="named:alice",
    pod_name="comfy-gw-alice-a1",
    alias="private-a1",
    file=FileName("ComfyUI_00001_.png", "portraits"),
    version=1,
    path="somewhere/else.png",
    sha256="0" * 64,
    size_bytes=1,
    etag="1-1",
    stored_at=NOON,
    prompt_id="p1",
)


@pytest.mark.parametrize(
    ("shown", "meant"),
    [
        (FileName("a.png", "private-a1"), Address("private-a1", FileName("a.png"))),
        (FileName("a.png", "private-a1/b/c"), Address("private-a1", FileName("a.png", "b/c"))),
        (FileName("a.png", "private-a1", "temp"), Address("private-a1", FileName("a.png", "", "temp"))),
        (FileName("a.png", "private-a1@2/b"), Address("private-a1", FileName("a.png", "b"), 2)),
        (FileName("a.png", "private-a1@0"), Address("private-a1@0", FileName("a.png"))),
        (FileName("a.png", "private-a1@02"), Address("private-a1@02", FileName("a.png"))),
        (FileName("a.png"), None),
        (FileName("a.png", "/private-a1"), None),
        (FileName("a.png", "private-a1", "input"), None),
    ],
)
def test_a_shown_name_says_pod_name_and_content(shown: FileName, meant: Address | None) -> None:
    assert address_of(shown) == meant


def test_the_newest_content_has_the_plain_address_and_an_earlier_one_its_own() -> None:
    assert shown_name(STORED, is_newest=True) == FileName("ComfyUI_00001_.png", "private-a1/portraits")
    earlier = shown_name(STORED, is_newest=False)
    assert earlier == FileName("ComfyUI_00001_.png", "private-a1@1/portraits")
    assert address_of(earlier) == Address("private-a1", STORED.file, 1)


def test_a_prompt_means_the_content_that_it_brought_or_that_was_there_when_it_ended() -> None:
    first = STORED
    second = replace(STORED, version=2, prompt_id="p2", stored_at=NOON + timedelta(minutes=2))
    both = [first, second]
    assert version_named_by("p1", NOON + timedelta(hours=1), both) is first
    assert version_named_by("p2", NOON, both) is second
    assert version_named_by("cached", NOON + timedelta(minutes=1), both) is first
    assert version_named_by("cached", NOON + timedelta(minutes=3), both) is second
    assert version_named_by("cached", NOON - timedelta(minutes=3), both) is first
    assert version_named_by("cached", None, both) is first


@pytest.mark.parametrize(
    "file",
    [
        FileName("a.png"),
        FileName("Bild Ä 漢字 (1).png", "a/b c"),
        FileName("a..png", "x..y"),
        FileName(".hidden"),
        FileName("x", "", "temp"),
    ],
)
def test_plain_names_may_be_kept(file: FileName) -> None:
    assert is_storable(file)


@pytest.mark.parametrize(
    "file",
    [
        FileName("..", ""),
        FileName(".", ""),
        FileName("", "a"),
        FileName("passwd", "/etc"),
        FileName("x", "a/../../b"),
        FileName("../x"),
        FileName("a/b.png"),
        FileName("a\\b.png"),
        FileName("a.png", "b\\c"),
        FileName("a\0b.png"),
        FileName("a\nb.png"),
        FileName("\ud800.png"),
        FileName("a" * 5000),
        FileName("a.png", "b/" * 600),
        FileName("a.png", "", "input"),
        FileName("a.png", "", "etc"),
    ],
)
def test_a_name_that_leads_elsewhere_or_that_no_disk_takes_is_not_asked_for(file: FileName) -> None:
    assert not is_storable(file)


def test_the_key_of_a_name_tells_its_parts_apart() -> None:
    names = [
        ("a", FileName("b")),
        ("a", FileName("b", "c")),
        ("a", FileName("c", "b")),
        ("a", FileName("b", "", "temp")),
        ("b", FileName("b")),
        ("a", FileName("\ud800")),
    ]
    assert len({file_key(alias, file) for alias, file in names}) == len(names)


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ('"18ea-1"', "18ea-1"),
        ('W/"18ea-1"', "18ea-1"),
        (None, None),
        ("", None),
        ('"', None),
        ('""', None),
        ("18ea-1", None),
        ('"a"b"', None),
        ('"a b"', None),
        ('"' + "a" * 129 + '"', None),
    ],
)
def test_only_a_plain_tag_is_told_on(header: str | None, tag: str | None) -> None:
    assert usable_etag(header) == tag


def test_aiohttps_tag_tells_time_and_size() -> None:
    assert modified_ns_of("18ea8a05c7f6aa00-400") == 0x18EA8A05C7F6AA00
    assert size_of("18ea8a05c7f6aa00-400") == 1024
    assert modified_ns_of(None) is size_of(None) is None
    assert modified_ns_of("abc") is size_of("abc") is None
