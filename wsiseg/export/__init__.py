"""Exports of a finished map for people and other programs: polygons, pictures, rasters, tables."""
