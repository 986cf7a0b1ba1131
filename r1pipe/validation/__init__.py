"""The gate between data and training: Great Expectations suites that stop the pipeline."""
