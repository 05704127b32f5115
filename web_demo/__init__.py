"""The web library, its page, and how they are built."""
