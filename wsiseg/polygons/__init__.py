"""Class map to polygons, in memory that does not grow with the map."""
