"""For maintainers: weights with their model cards, the entries of the index, the pages of the zoo."""
