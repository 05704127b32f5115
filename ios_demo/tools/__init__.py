"""What `make ios` runs."""
