"""Training data in other tools' formats, turned into dataset folders.

`format_catalog` lists the formats, `published_files` the files that are published in them, `download` fetches these,
and `import_files` does the work: a reader in `formats` parses a file, and a `DatasetWriter` writes a dataset folder.
Invariant: no module keeps more text in memory than one block of a file; it keeps ids, and rows up to a bound.
"""
