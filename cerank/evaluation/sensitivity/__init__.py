"""What a verdict depends on: judgments that lack, the order of tied documents, single documents and queries."""
