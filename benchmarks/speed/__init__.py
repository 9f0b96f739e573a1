"""Speed and memory of images, training, losses and statistics; ``python -m benchmarks.speed`` runs everything."""
