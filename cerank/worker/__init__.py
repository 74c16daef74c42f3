"""The process that carries out one run: it reads its run directory, does what the plan says, and writes there alone."""
