"""Networks that embed lesions, so that distances tell which are alike."""

from mmpluld.models.embedders.lesion_embedder import LesionEmbedder

__all__ = ["LesionEmbedder"]
