"""Find, check, load and save base models and cross-encoders, and score a batch."""
