"""Commands that cut, fuse and make rankings."""
