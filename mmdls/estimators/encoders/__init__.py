"""Encoders of slices, volumes and bags of vectors, each also a transformer of its own."""
