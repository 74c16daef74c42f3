"""Training data in other tools' formats, turned into dataset folders.

`format_catalog` lists the formats, `published_files` the files that are published in them, `download` fetches these,
and `import_files` does the work: a reader of `formats` says what stands in a file, a `Sink` writes a dataset folder.
Invariant: nothing here keeps texts in memory beyond a block of a file; what is kept is ids, and rows up to a bound.
"""
