"""Benchmark tasks for policies."""
