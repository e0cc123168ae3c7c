"""Configurations; each file is one experiment of the paper, in three variants."""
