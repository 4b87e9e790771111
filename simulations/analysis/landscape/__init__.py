"""A run's loss on lines and planes through its models, and barriers between them."""
