//! Admission.

use serde::{Deserialize, Serialize};

use super::{Quantile, parameters};

parameters! {
    /// `latency-slo-admitter`: refuses sheddable requests that no endpoint can serve in time. Unlike llm-d's,
    /// an idle endpoint does not admit by itself, and an untrusted prediction does.
    SloAdmitter {
        /// Headroom's own: the quantile compared with the SLO. The median, because a refusal is a certain miss:
        /// it only pays when the miss is more likely than not.
        quantile: Quantile = Quantile::P50,
    }
}
