"""Weights from other projects, key by key, and the way back."""
