"""Cohorts: lists of very many slides, a folder of their maps, and what became of each slide."""
