"""Limits of simplified polygons that are told to people as well; needs no shapely."""

from __future__ import annotations

AREA_CHANGE = 0.02
"""Share by which the area of a class may differ between map and default polygons; what differs more is said."""

REGIONS_AT_MOST = 200_000
"""A map with more regions (noise) is halved first: each takes some 25 us whenever the small ones give way."""
