"""What the Hub of `hub_server.py` keeps of files that travel by xet: hf_xet's own storage, in a folder."""

import struct
import tempfile
import time
from pathlib import Path

import hf_xet

EXPIRES_SECONDS = 3600
BLOCK = 48  # bytes of every entry in a shard
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30


class XetStorage:
    """Clients that get `token()` write to and read from the folder by themselves, as they do with the real storage.

    Chunks, hashes and shards are those of the real protocol; only its HTTP is left out.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="hub-xet-")
        self.url = f"local://{self._folder.name}"

    def close(self):
        self._folder.cleanup()

    def token(self) -> tuple[dict, dict]:
        """Body and headers of the answer to a client that asks where to send or find content."""
        expires = int(time.time()) + EXPIRES_SECONDS
        body = {"casUrl": self.url, "accessToken": "xet_local", "exp": expires}
        return body, {
            "X-Xet-Cas-Url": self.url,
            "X-Xet-Access-Token": body["accessToken"],
            "X-Xet-Token-Expiration": str(expires),
        }

    def hash_of(self, sha256: str) -> str | None:
        """The xet hash of content that was uploaded, or None."""
        for shard in Path(self._folder.name).glob("xet/shard-cache/*.mdb"):
            if (digest := _hashes(shard.read_bytes()).get(sha256)) is not None:
                return digest
        return None

    def read(self, sha256: str, size: int) -> bytes:
        """Content that was uploaded, put together again from its chunks."""
        target = Path(self._folder.name, f"{sha256}.read")
        token = {"token": "xet_local", "token_expiry_unix_secs": int(time.time()) + EXPIRES_SECONDS}
        with hf_xet.XetSession().new_file_download_group(endpoint=self.url, **token) as group:
            group.start_download_file(hf_xet.XetFileInfo(self.hash_of(sha256), size), str(target))
        content = target.read_bytes()
        target.unlink()
        return content


def _hashes(shard: bytes) -> dict[str, str]:
    """SHA-256 -> xet hash of the files that a shard lists."""
    # Source: https://huggingface.co/docs/xet/shard, the file info section, which follows a header of one block.
    hashes, at = {}, BLOCK
    while shard[at : at + 32] != b"\xff" * 32:
        file = shard[at : at + 32]
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        at += BLOCK * (1 + segments * (2 if flags & HAS_VERIFICATION else 1))
        if flags & HAS_SHA256:
            hashes[_hex(shard[at : at + 32])] = _hex(file)
            at += BLOCK
    return hashes


def _hex(digest: bytes) -> str:
    """A hash as the protocol writes it: four little-endian words."""
    return "".join(digest[start : start + 8][::-1].hex() for start in range(0, 32, 8))
