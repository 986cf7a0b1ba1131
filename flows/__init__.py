"""Prefect flows: when the pipeline runs, where, and who is told.

DVC owns what depends on what and what is stale; Prefect owns when, where, with which retry, and who is told. No data
passes between tasks: files are the interface, and between machines DVC's run cache in its remote.
"""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# On a busy machine SQLite takes longer than Prefect waits by default, for a statement and for a new database.
os.environ.setdefault("PREFECT_SERVER_DATABASE_TIMEOUT", "60")
os.environ.setdefault("PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT", "60")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# In memory, its default, a server forgets with a restart who holds the GPU, and nobody ever gets it again (PrefectHQ/prefect#20090).
os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem")
