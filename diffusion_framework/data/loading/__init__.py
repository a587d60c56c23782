"""Batches for training: their order, the cache of decoded images, and the loader."""
