"""TREC runs and qrels: strict readers, byte-exact writers, and memory-mapped runs for files of any size."""
