"""GeoJSON and polygons: what a user gives is read, simplified and exact polygons are written."""
