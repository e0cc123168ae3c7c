"""Evaluation: metrics, tables and reports."""
