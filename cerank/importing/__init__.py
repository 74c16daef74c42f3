"""Training data in other tools' formats, turned into dataset folders: a module per family of formats.

`catalogue` lists the formats, `sources` the files that are published in them, `fetching` downloads these, and
`imports` does the work: a reader says what stands in a file, a `Sink` writes it as a folder that cerank reads.
Invariant: nothing here keeps texts in memory beyond a block of a file; what is kept is ids, and rows up to a bound.
"""
