"""Cohorts on Dask clusters: a slide a task, in worker processes of this machine, of a scheduler, or of SLURM jobs."""
