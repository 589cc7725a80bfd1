"""The tissue map on disk, an OME-Zarr: written, checked, read, measured."""
