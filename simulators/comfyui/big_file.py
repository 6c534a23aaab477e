"""Files of any size whose bytes are known from their name alone, made and checked piece by piece."""

import hashlib
from collections.abc import Iterator

BLOCK_BYTES = 1024 * 1024


def big_file_blocks(server: str, seed: int, size_bytes: int) -> Iterator[bytes]:
    """The content of SimSaveBytes' file in pieces of at most 1 MiB: no two blocks, seeds or servers are alike."""
    for index, start in enumerate(range(0, size_bytes, BLOCK_BYTES)):
        digest = hashlib.sha256(f"{server}/{seed}/{index}".encode()).digest()
        block = digest * (BLOCK_BYTES // len(digest))
        yield block[: size_bytes - start]


def big_file_sha256(server: str, seed: int, size_bytes: int) -> str:
    """The checksum of that file, without the file."""
    whole = hashlib.sha256()
    for block in big_file_blocks(server, seed, size_bytes):
        whole.update(block)
    return whole.hexdigest()
