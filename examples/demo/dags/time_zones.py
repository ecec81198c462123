"""The world's time zones: from a file that has not come yet to figures one can check by hand.

The input is the table of the IANA time zone database (public domain, in the package ``tzdata``).
Two tasks wait for it, deferred: one for the file to land, one for a moment in time. Neither holds
a slot or a process meanwhile.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from roost.dag import DAG, task
from roost.sensors import DateTimeSensor, FileSensor

HOME = Path(os.environ.get("ROOST_HOME", "."))
INCOMING = HOME / "incoming"
DATABASE = HOME / "time_zones.db"
POSITION = re.compile(r"[+-]\d{4}(\d{2})?[+-]\d{5}(\d{2})?")


def rows(file: Path) -> list[list[str]]:
    """The lines of a table without its comments, cut at tabs."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


with DAG(
    "time_zones",
    schedule=None,
    description="Loads the IANA time zone table when it lands, checks it and reports",
    tags=["demo"],
) as dag:
    wait_for_file = FileSensor(
        task_id="wait_for_file",
        filepath=str(INCOMING / "zone1970.tab"),
        poke_interval=0.5,
        timeout=timedelta(minutes=5),
    )
    wait_for_moment = DateTimeSensor(
        task_id="wait_for_moment", target_time="{{ dag_run.conf['not_before'] }}"
    )

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def load() -> int:
        """Write both tables into a database, all or nothing, however often it is tried."""
        zones = [
            (code, position, name, name.partition("/")[0])
            for codes, position, name, *_ in rows(INCOMING / "zone1970.tab")
            for code in codes.split(",")
        ]
        with closing(sqlite3.connect(DATABASE)) as database, database:
            database.executescript(
                "DROP TABLE IF EXISTS country; DROP TABLE IF EXISTS zone;"
                "CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT);"
                "CREATE TABLE zone (code TEXT, position TEXT, name TEXT, region TEXT);"
            )
            database.executemany(
                "INSERT INTO country VALUES (?, ?)", rows(INCOMING / "iso3166.tab")
            )
            database.executemany("INSERT INTO zone VALUES (?, ?, ?, ?)", zones)
        print(f"loaded {len(zones)} pairs of country and zone into {DATABASE}")
        return len(zones)

    @task.branch
    def check() -> str:
        """Every country code must be known and every position well-formed."""
        with closing(sqlite3.connect(DATABASE)) as database:
            unknown = database.execute(
                "SELECT count(*) FROM zone WHERE code NOT IN (SELECT code FROM country)"
            ).fetchone()[0]
            positions = database.execute("SELECT position FROM zone").fetchall()
        malformed = sum(POSITION.fullmatch(position) is None for (position,) in positions)
        print(f"{unknown} unknown country codes, {malformed} malformed positions")
        return "quarantine" if unknown or malformed else "report"

    @task
    def quarantine() -> None:
        """Put a file that failed the check aside."""
        (INCOMING / "zone1970.tab").rename(HOME / "zone1970.rejected")

    @task
    def report() -> dict[str, int]:
        """The figures; the demo names the commands that count the same by hand."""
        with closing(sqlite3.connect(DATABASE)) as database:

            def count(query: str) -> int:
                return int(database.execute(query).fetchone()[0])

            figures = {
                "zones": count("SELECT count(DISTINCT name) FROM zone"),
                "countries in the list": count("SELECT count(*) FROM country"),
                "countries with a zone": count("SELECT count(DISTINCT code) FROM zone"),
                "zones of the US": count("SELECT count(*) FROM zone WHERE code = 'US'"),
                "zones in America/": count(
                    "SELECT count(DISTINCT name) FROM zone WHERE region = 'America'"
                ),
            }
        for what, number in figures.items():
            print(f"{number:5} {what}")
        return figures

    checked = check()
    [wait_for_file, wait_for_moment] >> load() >> checked >> [report(), quarantine()]
