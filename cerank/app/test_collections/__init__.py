"""Several test collections under one name: which of them are on disk, and what is compared on all of them."""
