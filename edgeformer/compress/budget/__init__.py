"""A budget of quality, size and latency, and the search for formats and recipes that meet it."""
