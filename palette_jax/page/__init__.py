"""The page of the demo: its layout, its limits and its editor."""
