//! What is held in the queue, against its caps.

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Requests(u64),
    Bytes(u64),
    /// In its band nothing waits.
    NoWaiting,
}

/// What a band, or several together, hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

impl Held {
    /// Both together.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, bytes: u64) {
        self.requests -= 1;
        self.bytes -= bytes;
    }

    /// Which of two caps, if any, another `bytes` would break.
    pub(crate) fn full(self, bytes: u64, requests: Option<u64>, most: Option<u64>) -> Option<Full> {
        let requests = requests.filter(|&most| self.requests.saturating_add(1) > most);
        let most = most.filter(|&most| self.bytes.saturating_add(bytes) > most);
        requests.map(Full::Requests).or(most.map(Full::Bytes))
    }
}
