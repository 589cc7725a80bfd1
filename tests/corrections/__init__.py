"""Tests of wsiseg.corrections."""
