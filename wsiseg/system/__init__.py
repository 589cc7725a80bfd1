"""The machine: files, threads with time limits, memory, clock, safe text. Knows no slide and no map."""
