//! What every part of Headroom needs of a Kubernetes API: client, watches, leases, delegated authentication, events.
