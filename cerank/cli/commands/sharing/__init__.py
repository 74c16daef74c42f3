"""Commands that bring a re-ranker to where it is used."""
