"""The tasks of bundles, a record each."""
