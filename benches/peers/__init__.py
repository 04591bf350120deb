"""Peers: the same job done as one would do it with other libraries."""
