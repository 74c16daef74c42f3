"""Commands of teachers beside `cerank teach`."""
