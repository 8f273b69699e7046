"""A grid of runs from one file, and tables of what came of it."""
