"""Whole pages: find the lines, read them, put them in order, write them down."""
