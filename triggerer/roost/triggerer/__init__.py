"""The triggerer: a supervisor that owns the database, a runner that owns the user's triggers.

The life of a poll trigger, from the row that a deferral left to the event that ends it::

    row, no owner --claim: job_id, epoch+1--> ours --Start--> runner: build, run(), first event
         ^                                     |                          |
         +-- release: stop, or owner is gone --+                       Report
                                                                          v
    row deleted <--scheduler settles-- fired_at set <--same transaction-- trigger_event

- A row belongs to a triggerer while ``job_id`` names a job that has not ended. Whoever finds an
  owner gone ends its job and frees its rows in one transaction; a claim raises ``epoch``.
- An event is accepted for the epoch in force from the job in force; all others change nothing. So
  a trigger may run in two places for a while (D8), but only one of them is heard.
- What the runner should run is never remembered, only compared: each look at the database yields
  a count and a sum of ids, and where they differ from what the runner was given, both sides are
  compared id by id. A cleared row, a replaced runner and a lost answer to a commit mend alike.
- A trigger in whose step a runner ended gets a strike: it is held back for a while, and failed
  with the third. The runner notes whose step it is in where the supervisor finds it afterwards.
- When a user clears or marks a deferred task, its row moves to ``trigger_kill`` with its claim. The
  owner has ``on_kill()`` called on the object that runs; where that owner is gone, another one
  claims the kill and has the trigger made for it. A kill is settled under the epoch of its claim,
  and given to three runners at most, after the first to the one apart.
- A timer is no more than its row: one statement turns what is due into events.

``daemon`` is the shell (lease, signals, bells), ``lanes`` the loop, ``outbox`` and ``sightings``
the ways of reports and of what watchers saw into the database, ``keeper`` the runner as a child
process, ``strikes`` the count of who ended it, ``inquiries`` the answers to what triggers ask;
``runner`` is that child, with ``host`` for the triggers in it, ``uplink`` for its end of the line,
``case``, ``pooled``, ``asking``, ``registry``, ``steps`` and ``watchdog``; these import no
database. Nothing may be imported in this file.
"""
