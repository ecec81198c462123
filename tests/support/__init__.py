"""Helpers of the suite: a PostgreSQL server, real daemons, databases that cost a copy."""
