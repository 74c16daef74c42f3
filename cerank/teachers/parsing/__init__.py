"""What models write, read as orders, choices, grades and scores; every repair is counted."""
