"""This computer: its devices, the locks on them, and how fast it was when last measured."""
