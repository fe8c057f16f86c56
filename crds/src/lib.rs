//! Kubernetes types: ours and those we read.
