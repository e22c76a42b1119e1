"""Sweeps on a Ray cluster: `driver` hands out, `tasks` is what runs on a node, `joining` alone knows Ray."""
