//! Bucket bounds of the histograms, as llm-d has them.

use prometheus_client::metrics::histogram::Histogram;

/// 5 ms to an hour.
pub(super) fn duration() -> Histogram {
    Histogram::new([
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
        10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
        1200.0, 1800.0, 2700.0, 3600.0,
    ])
}

/// Time to first token: 5 ms to two minutes.
pub(super) fn ttft() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0,
        7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
    ])
}

/// Time per output token: half a millisecond to two seconds.
pub(super) fn tpot() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
        0.3, 0.5, 1.0, 2.0,
    ])
}

/// Time between two pieces of an answer: a millisecond to two seconds.
pub(super) fn itl() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
        1.0, 2.0,
    ])
}

/// Duration over output tokens: a millisecond to ten seconds.
pub(super) fn ntpot() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ])
}

/// Powers of two from 64 bytes to 1 GiB.
pub(super) fn request_size() -> Histogram {
    Histogram::new(powers(6, 30))
}

/// 1, then powers of two from 8 to 65,536.
pub(super) fn response_size() -> Histogram {
    Histogram::new(std::iter::once(1.0).chain(powers(3, 16)))
}

/// 1, then powers of two from 8 to 1,048,576.
pub(super) fn input_tokens() -> Histogram {
    Histogram::new(std::iter::once(1.0).chain(powers(3, 20)))
}

/// 1, then powers of two from 8 to 8,192.
pub(super) fn output_tokens() -> Histogram {
    Histogram::new(std::iter::once(1.0).chain(powers(3, 13)))
}

/// 0.1 ms to a minute in the queue.
pub(super) fn queue() -> Histogram {
    Histogram::new([
        0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0,
        60.0,
    ])
}

/// A step of the picker's own: 0.1 ms to 0.1 s.
pub(super) fn step() -> Histogram {
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
    ])
}

/// From the request's arrival to its way on: 0.5 ms to 10 s.
pub(super) fn request_processing() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ])
}

/// Work on one answer: 0.1 ms to 5 s.
pub(super) fn response_processing() -> Histogram {
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    ])
}

/// Life of a stream: 1 ms to ten minutes.
pub(super) fn stream() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0])
}

/// A share of one.
pub(super) fn share() -> Histogram {
    Histogram::new([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
}

/// Bytes of prompts: nothing, then powers of two from 16 to 1,048,576.
pub(super) fn hit_bytes() -> Histogram {
    Histogram::new(std::iter::once(0.0).chain(powers(4, 20)))
}

fn powers(from: u32, to: u32) -> impl Iterator<Item = f64> {
    (from..=to).map(|power| f64::from(1_u32 << power))
}
