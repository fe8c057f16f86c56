//! Where a block lies, and what finding it there is worth.

/// How many tiers there are.
pub const TIERS: usize = 5;

/// Where an endpoint keeps a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// The accelerator's memory.
    Device,
    /// The host's memory.
    Host,
    /// A local disk.
    Disk,
    /// A store that several endpoints share.
    Remote,
    /// Nowhere yet: a request with this block was just sent there.
    Expected,
}

impl Tier {
    /// Every tier, in the order of [`Tier::index`].
    pub const ALL: [Self; TIERS] = [
        Self::Device,
        Self::Host,
        Self::Disk,
        Self::Remote,
        Self::Expected,
    ];

    /// The tier that an event's `medium` names; an engine that names none means its accelerator, and a name nobody
    /// knows is taken for it as well.
    pub fn of_medium(medium: Option<&str>) -> Self {
        let Some(medium) = medium else {
            return Self::Device;
        };
        let named = |names: &[&str]| names.iter().any(|name| medium.eq_ignore_ascii_case(name));
        if named(&[
            "cpu",
            "cpu_pinned",
            "cpu_tier1",
            "cpu_tier2",
            "host",
            "dram",
        ]) {
            Self::Host
        } else if named(&["disk", "ssd", "nvme", "storage", "fs", "file"]) {
            Self::Disk
        } else if named(&["remote", "external", "object", "obj", "s3", "shared"]) {
            Self::Remote
        } else {
            Self::Device
        }
    }

    /// The same where the engine says whose the medium is: what is another's is remote, wherever it lies there.
    pub fn of(medium: Option<&str>, locality: Option<&str>) -> Self {
        if locality.is_some_and(|locality| locality.eq_ignore_ascii_case("remote")) {
            Self::Remote
        } else {
            Self::of_medium(medium)
        }
    }

    /// This tier's place in [`TierWeights`].
    pub fn index(self) -> usize {
        match self {
            Self::Device => 0,
            Self::Host => 1,
            Self::Disk => 2,
            Self::Remote => 3,
            Self::Expected => 4,
        }
    }
}

/// What a block is worth by the best tier that holds it, 0 to 1 each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierWeights(pub [f32; TIERS]);

impl Default for TierWeights {
    /// llm-d's weights for accelerator and host; disk and remote below them; what is expected counts as there.
    fn default() -> Self {
        Self([1.0, 0.8, 0.5, 0.4, 1.0])
    }
}

impl TierWeights {
    /// The weight of `tier`.
    pub fn of(&self, tier: Tier) -> f32 {
        self.0[tier.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_tiers_whatever_their_case() {
        for (medium, tier) in [
            (None, Tier::Device),
            (Some("GPU"), Tier::Device),
            (Some("CPU"), Tier::Host),
            (Some("cpu_pinned"), Tier::Host),
            (Some("Disk"), Tier::Disk),
            (Some("EXTERNAL"), Tier::Remote),
            (Some("holographic"), Tier::Device),
        ] {
            assert_eq!(Tier::of_medium(medium), tier, "{medium:?}");
        }
        assert_eq!(Tier::of(Some("STORAGE"), Some("REMOTE")), Tier::Remote);
        assert_eq!(Tier::of(Some("STORAGE"), Some("LOCAL")), Tier::Disk);
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            assert_eq!(tier.index(), index);
        }
    }
}
