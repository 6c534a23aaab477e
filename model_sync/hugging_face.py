"""What the Hugging Face hub says about a file, asked by huggingface_hub.

The bytes themselves come by `model_sync.web`. huggingface_hub's own transfer (plain or xet) has no bandwidth cap,
cannot continue at another mirror, keeps a second copy or a cache of chunks on the disk, and checks no checksum while it
streams. What it knows better than we do is the hub: addresses, and the headers with the size and the sha256 that the
publisher's file really has, which come before the redirect to the delivery network.
"""

import re

from httpx2 import HTTPError
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from yarl import URL

from model_sync.errors import Passing
from model_sync.sources import Published
from model_sync.threads import to_end
from model_sync.tokens import HOSTS, Tokens

# https://huggingface.co/[datasets/|spaces/]owner/name/resolve/revision/path; `blob` is the page about the file.
_FILE = re.compile(
    r"/(?:(?P<type>datasets|spaces)/)?(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<path>.+)"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 10


def is_hub(url: URL) -> bool:
    return url.scheme == "https" and url.host in HOSTS["HF_TOKEN"] and _FILE.fullmatch(url.path) is not None


def file_url(url: URL, *, revision: str | None = None) -> URL:
    """The address of the file itself, where `url` may be that of the page about it; at `revision`, if one is given."""
    found = _FILE.fullmatch(url.path)
    assert found is not None
    text = hf_hub_url(
        found["repo"],
        found["path"],
        repo_type={"datasets": "dataset", "spaces": "space"}.get(found["type"] or ""),
        revision=revision or found["revision"],
        endpoint=str(url.origin()),
    )
    return URL(text, encoded=True)


async def published(url: URL, tokens: Tokens) -> Published:
    """Size and sha256 of a file of the hub, and its address at the commit of this moment. `is_hub(url)` holds.

    The sha256 is None for small files, which are kept in git and have a sha1. Raises Passing when the hub does not
    say; the file may be had all the same.
    """
    plain = file_url(url)
    token = tokens.headers_for(plain).get("Authorization", "").removeprefix("Bearer ") or False
    try:
        # token=False: nothing is taken from where `hf auth login` keeps it.
        said = await to_end(lambda: get_hf_file_metadata(str(plain), token=token, timeout=TIMEOUT_S))
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise Passing(f"{_ENDPOINT}: {type(error).__name__}") from error
    etag = said.etag or ""
    return Published(
        url=file_url(url, revision=said.commit_hash) if said.commit_hash else plain,
        size_bytes=said.size,
        sha256=etag if _SHA256.fullmatch(etag) else None,
        filename=plain.name,
    )


async def files_of(repository: str, tokens: Tokens) -> list[tuple[str, Published]]:
    """Every file of a model repository with its path there. Raises Passing when the hub does not say."""
    origin = URL(_ENDPOINT)
    token = tokens.headers_for(origin).get("Authorization", "").removeprefix("Bearer ") or False

    def ask() -> list[tuple[str, Published]]:
        hub = HfApi(endpoint=_ENDPOINT, token=token)
        commit = hub.model_info(repository, timeout=TIMEOUT_S).sha
        return [
            (
                item.path,
                Published(
                    url=URL(
                        hf_hub_url(repository, item.path, revision=commit, endpoint=_ENDPOINT), encoded=True
                    ),
                    size_bytes=item.size,
                    sha256=item.lfs.sha256 if item.lfs else None,
                ),
            )
            for item in hub.list_repo_tree(repository, revision=commit, recursive=True)
            if isinstance(item, RepoFile)
        ]

    try:
        return await to_end(ask)
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise Passing(f"{_ENDPOINT}/{repository}: {type(error).__name__}") from error
