"""The models of this package: their index, their weights, and how weights are published."""

from mmpluld.zoo.download import download_model, fetch, local_checkpoint
from mmpluld.zoo.index import Result, ZooModel, get_model, load_index, zoo_root

__all__ = [
    "Result",
    "ZooModel",
    "download_model",
    "fetch",
    "get_model",
    "load_index",
    "local_checkpoint",
    "zoo_root",
]
