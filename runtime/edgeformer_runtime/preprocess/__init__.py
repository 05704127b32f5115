"""Raw inputs to tensors."""
