"""The packaged model behind an HTTP API and a page."""
