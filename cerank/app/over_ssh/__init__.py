"""Labs on other machines over the user's own ssh, and runs that move between labs."""
