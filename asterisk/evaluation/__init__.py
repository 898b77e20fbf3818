"""Tasks, metrics, and the pages and plots of their results: the extra `evaluate`."""
