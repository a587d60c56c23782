"""Batches for a training run: their order, the cache of decoded images, and the loader."""
