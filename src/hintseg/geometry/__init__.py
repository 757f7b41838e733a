"""Boxes, strokes, run lengths and polygons, and their pixels: plain functions on numpy arrays."""
