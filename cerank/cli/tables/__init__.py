"""What commands show, as tables: which columns, in which order, in which words."""
