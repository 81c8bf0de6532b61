"""Bridges to other packages; each is imported only when that package is there."""
