"""Metrics of restored pictures; one file for each family."""
