"""The `roost` command: a file for each group of commands, imported when it is used."""
