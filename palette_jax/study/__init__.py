"""The human study of the paper: which of two pictures is from a camera?"""
