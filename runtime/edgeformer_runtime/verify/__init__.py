"""Verification: recorded vectors replayed stage by stage."""
