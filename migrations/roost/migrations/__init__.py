"""Schema migrations: Alembic's scripts, and the calls behind `roost db`."""
