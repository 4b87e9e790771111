"""Files: atomic writes, tensors, stored records."""
