"""Model folders on disk: where their files are, whether they are whole and safe, and their digests."""

__all__ = [
    "folders",
    "kv_cache",
    "opening",
]
