"""Named statements, one module for each kind of row; nothing else makes SQL."""
