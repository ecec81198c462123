"""A PostgreSQL database for the tests of this folder that want one."""

from tests.support.reused import postgresql_url

__all__ = ["postgresql_url"]
