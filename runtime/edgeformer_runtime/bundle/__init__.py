"""A bundle: its manifest and records, its files, its signature, how it is opened."""
