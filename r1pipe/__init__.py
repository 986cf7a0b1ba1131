"""3D-R1 as a pipeline: scans and annotations in; a dataset, a tuned model, scores and a service out."""
