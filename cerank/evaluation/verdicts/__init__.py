"""The steps from two systems to a verdict: terms, the test of a row, the family of all tests, the verdict itself."""
