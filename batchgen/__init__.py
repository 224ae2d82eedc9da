"""Batchgen: a batch job runner for bulk image generation."""

__version__ = "0.1.0"
