"""How a network is computed: torch, compiled, OpenVINO; batches that fit."""
