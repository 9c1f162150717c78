"""The models of this package: their index, and how their weights are found and fetched."""

from mmpluld.zoo.download import fetch, local_checkpoint
from mmpluld.zoo.index import Result, ZooModel, get_model, load_index, zoo_root

__all__ = ["Result", "ZooModel", "fetch", "get_model", "load_index", "local_checkpoint", "zoo_root"]
