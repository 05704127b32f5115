"""Reports of everything that a folder holds: bundles, compressed checkpoints, searches."""
