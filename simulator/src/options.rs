//! How a server is set up.

use simulator_core::Profile;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// On which chunks of a stream an engine writes `"usage":null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NullUsage {
    /// On none, as vLLM's chat completions.
    #[default]
    Never,
    /// On every chunk of a stream that asked for usage, as OpenAI.
    Requested,
    /// On every chunk of every stream, as vLLM's completions.
    Always,
}

/// What a simulated server serves, where, and how it behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// Hardware and engine limits.
    pub profile: Profile,
    /// Name under which the model is served.
    pub model: String,
    /// Address listened on.
    pub host: IpAddr,
    /// Port listened on; 0 takes any free one.
    pub port: u16,
    /// Seeds step noise, answer lengths and texts.
    pub seed: u64,
    /// Every route answers 503 for this long.
    pub startup: Duration,
    /// How long requests may go on once the server is asked to stop.
    pub drain: Duration,
    /// Requests that may wait for the engine; further ones get 429.
    pub max_waiting: u32,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Equal requests get equal ids and creation times, so that answers can be compared byte for byte.
    pub fixed_identity: bool,
    /// Where streams carry `"usage":null`.
    pub null_usage: NullUsage,
}

impl ServerOptions {
    /// The profile's own model and start-up time, on any free local port.
    pub fn new(profile: Profile) -> Self {
        Self {
            model: profile.model.clone(),
            startup: profile.startup(),
            profile,
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            seed: 0,
            drain: Duration::from_secs(30),
            max_waiting: 4_096,
            max_body_bytes: 16 << 20,
            fixed_identity: false,
            null_usage: NullUsage::default(),
        }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}
