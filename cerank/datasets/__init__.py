"""Datasets by name: pydocs, ir_datasets, BEIR and local folders; which queries their parts share."""
