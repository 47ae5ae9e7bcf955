"""Hands-on model-based reinforcement learning: the reference package of the course."""
