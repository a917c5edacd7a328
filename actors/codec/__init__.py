"""Values and JSON, checked against the annotation both ways. The door: ``codec_for`` gives a ``Codec``.

Imports the vocabulary alone.
"""

from .codec import Codec, codec_for, codec_of_type

__all__ = ["Codec", "codec_for", "codec_of_type"]
