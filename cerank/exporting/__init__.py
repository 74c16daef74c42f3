"""Write a re-ranker in the format of another library, and check its scores there."""
