"""The formats of Whisper's peers, by the name under which the speech benchmark knows them."""

from edgeformer.bench.whisper_formats import PeerModels, size_bytes

__all__ = ["PeerModels", "size_bytes"]
