"""The API of a cluster, in the few words that sweeps need."""
