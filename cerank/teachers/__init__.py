"""Teachers made by models: prompts, servers, answers kept on disk, rankings with their provenance."""
