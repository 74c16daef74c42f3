"""Run encoders fast and reproducibly: packed pairs, attention, dropout, linear layers, threads, determinism."""
