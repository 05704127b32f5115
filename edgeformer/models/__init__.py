"""One self-contained file per model family, written for export."""
