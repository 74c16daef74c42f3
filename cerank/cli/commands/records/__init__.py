"""Commands that ask the records of the lab, and keep its book."""
