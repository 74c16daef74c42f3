"""Teachers: making their rankings, judging them before they teach."""
