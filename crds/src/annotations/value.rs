//! Values of annotations: what is right for each, and the words for it.

use crate::model_scaler::{MAX_REPLICAS, Mode, Role, Startup};

/// Reads a value without space around it, or says what would be right.
pub(crate) type Parse<T> = fn(&str) -> Result<T, &'static str>;

pub(crate) fn model(text: &str) -> Result<String, &'static str> {
    let named = (1..=253).contains(&text.chars().count()) && !text.contains(char::is_control);
    named
        .then(|| text.to_owned())
        .ok_or("the model's name as clients send it, 1 to 253 characters")
}

pub(crate) fn milliseconds(text: &str) -> Result<f64, &'static str> {
    number(text)
        .filter(|milliseconds| *milliseconds > 0.0)
        .ok_or("milliseconds above 0, such as 500")
}

pub(crate) fn percentile(text: &str) -> Result<f64, &'static str> {
    number(text)
        .filter(|percentile| (1.0..100.0).contains(percentile))
        .ok_or("per cent, at least 1 and below 100, such as 90")
}

pub(crate) fn cost(text: &str) -> Result<f64, &'static str> {
    number(text)
        .filter(|cost| *cost >= 0.0)
        .ok_or("a cost per hour of 0 or more, such as 2.5")
}

pub(crate) fn accelerator(text: &str) -> Result<String, &'static str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let outside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let label = text.len() <= 63
        && text.chars().all(inside)
        && outside(text.chars().next())
        && outside(text.chars().next_back());
    label
        .then(|| text.to_owned())
        .ok_or("an accelerator as labels spell it, such as NVIDIA-H100-80GB-HBM3")
}

pub(crate) fn role(text: &str) -> Result<Role, &'static str> {
    Role::ALL
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or("prefill, decode or both")
}

pub(crate) fn mode(text: &str) -> Result<Mode, &'static str> {
    Mode::ALL
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or("advise, publish or direct")
}

pub(crate) fn startup(text: &str) -> Result<Startup, &'static str> {
    Startup::parse(text).ok_or("whole seconds from 1 to 86400, or auto")
}

pub(crate) fn object_name(text: &str) -> Result<String, &'static str> {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.bytes().all(|c| inside(c) || c == b'-')
            && label.bytes().next().is_some_and(inside)
            && label.bytes().next_back().is_some_and(inside)
    };
    (text.len() <= 253 && text.split('.').all(label))
        .then(|| text.to_owned())
        .ok_or("the name of an InferencePool in the same namespace")
}

pub(crate) fn min_replicas(text: &str) -> Result<u32, &'static str> {
    replicas(text).ok_or("a number of replicas from 0 to 100000")
}

pub(crate) fn max_replicas(text: &str) -> Result<u32, &'static str> {
    replicas(text)
        .filter(|replicas| *replicas >= 1)
        .ok_or("a number of replicas from 1 to 100000")
}

fn replicas(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|replicas| *replicas <= MAX_REPLICAS)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
