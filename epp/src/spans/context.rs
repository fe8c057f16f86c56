//! W3C trace context: what a request brings, and what it takes along.

/// A trace as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Never 0.
    pub trace: u128,
    /// Never 0.
    pub span: u64,
    /// Whether whoever began the trace records it.
    pub sampled: bool,
}

impl Parent {
    /// Reads a `traceparent`; `None` = it is none, or of a version that says otherwise.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, digits: usize| {
            let fits = part.len() == digits
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            fits.then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let version = hex(version, 2)?;
        // Later versions may append parts; the first one may not, and ff is none.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span) = (hex(trace, 32)?, hex(span, 16)? as u64);
        (trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            sampled: hex(flags, 2)? & 1 == 1,
        })
    }

    /// As it is written.
    pub fn to_header(self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written() {
        let parent = Parent::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_header(), TEXT);
        let later = TEXT.replacen("00-", "cc-", 1) + "-more";
        assert_eq!(Parent::parse(later.as_bytes()), Some(parent));
        let unsampled = Parent::parse(TEXT.replace("-01", "-02").as_bytes()).unwrap();
        assert!(!unsampled.sampled);
    }

    #[test]
    fn what_is_none_is_none() {
        let zero = TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = TEXT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let wrong = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf9-00f067aa0ba902b7-01",
            &zero,
            &no_span,
        ];
        for text in wrong {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Parent::parse(b"\xff\xfe"), None);
    }
}
