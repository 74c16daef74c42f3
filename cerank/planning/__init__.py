"""What a plan is made from: its inputs with their hashes, the cache keys of its stages, and its workload."""
