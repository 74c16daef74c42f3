"""How each kind of teacher ranks the candidates of a query: which calls it makes, and what it does with the answers.

A procedure is a generator: it yields calls that do not depend on one another, is sent what their answers mean, and
returns an outcome. It knows no server; so servers, models in process, batches and dry runs carry out the same code.
"""
