"""A launch as Kubernetes manifests, and all that speaks against it before a cluster is asked."""
