//! Parsers that no request reaches.

use super::super::finding::Level;
use super::super::raw;
use super::Notes;

/// Reads every path, so that a second one never sees a request.
const FALLBACK: &str = "passthrough-parser";

pub(super) fn check(document: &raw::Document, notes: &mut Notes) {
    let Some(handler) = &document.request_handler else {
        return;
    };
    let mut before: Vec<&str> = Vec::new();
    for (index, reference) in handler.parsers.iter().enumerate() {
        let type_name = document.type_of(&reference.plugin_ref);
        if before.contains(&type_name) {
            let place = format!("requestHandler.parsers[{index}]");
            let what = match type_name {
                FALLBACK => "an earlier parser already takes every path that no other parser knows",
                _ => "an earlier parser of this type already takes all of its paths",
            };
            notes.add(Level::Unreachable, place, what, "leave it out");
        }
        before.push(type_name);
    }
    if !before.is_empty() && !before.contains(&FALLBACK) {
        let message = "requests for paths that none of these parsers knows are answered with 400";
        let advice = format!("add a {FALLBACK} to route them untouched");
        notes.add(Level::Caution, "requestHandler.parsers", message, advice);
    }
}
