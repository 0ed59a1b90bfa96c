"""The paper's networks, and trained networks from a folder as denoisers."""

from patchmosaic.nets.network import Network, load_network, save_network

__all__ = ["Network", "load_network", "save_network"]
