"""The steps of a scheduler turn, each one a function of the turn."""
