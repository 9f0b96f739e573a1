"""Models of all modalities: one task, or all of them."""
