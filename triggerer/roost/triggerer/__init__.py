"""The triggerer: a supervisor that owns the database, a runner that owns the user's triggers."""
