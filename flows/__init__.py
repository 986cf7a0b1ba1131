"""Prefect flows: when the pipeline runs, where, and who is told.

DVC owns what depends on what and what is stale; Prefect owns when, where, with which retry, and who is told. No data
passes between tasks: files are the interface, and between machines DVC's run cache in its remote.
"""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A busy machine takes more than Prefect's 20 seconds to make a database for a run without a server.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
