"""The bytes of a slide, on this machine or behind an address: ranges, requests, retries."""
