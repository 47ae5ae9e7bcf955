"""Authoring, releasing and grading: what an instructor runs."""
