"""The machine: files, threads with time limits, memory, clock, text that is safe to print. Knows no slide and no map."""
