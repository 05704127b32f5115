"""A bundle in a process of its own, which has no network, reads and writes nothing else, and can die alone."""
