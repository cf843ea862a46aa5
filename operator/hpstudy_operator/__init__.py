"""The Kubernetes operator: watches HPStudies, runs their worker groups, and reports what the storage says."""
