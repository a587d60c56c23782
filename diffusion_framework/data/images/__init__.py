"""Datasets of single image files, and the decoding of one file into a tensor."""
