"""Images from a named source or a folder, as uint8 arrays at the network's size."""

from ftjax.data.images import Arrays, Dataset, load, load_object_masks
from ftjax.data.sources import SOURCES

__all__ = ["SOURCES", "Arrays", "Dataset", "load", "load_object_masks"]
