"""What can be done with rankings beside comparing them: depths, fusion, first stages by re-rankers, retrieval."""
