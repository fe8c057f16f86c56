//! From request to outcome: flow control, scheduling, prefix index, SLO admission; no sockets.
