"""What the tests stand on: a real API server, a real cluster and a real PostgreSQL, each as a context manager."""
