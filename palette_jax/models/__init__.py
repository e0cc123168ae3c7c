"""The networks; they know noise levels but no schedule."""
