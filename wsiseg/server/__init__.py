"""Pages in a browser of this machine: a server on the loopback address, closed to everybody but who started it."""
