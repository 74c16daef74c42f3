"""What a comparison measures: systems from runs of the lab, and from TREC run files with their judgments."""
