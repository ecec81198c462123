"""The metadata database: tables, states, the one writer of state, and all other SQL in queries/."""
