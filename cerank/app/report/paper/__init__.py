"""What a paper takes from a report beside its tables: the paragraph on methods with its references, forest plots."""
