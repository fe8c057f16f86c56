//! Paths that no parser knows.

use super::super::finding::Level;
use super::super::{Config, Parser, raw};
use super::Notes;

pub(super) fn check(document: &raw::Document, config: &Config, notes: &mut Notes) {
    let listed = document.request_handler.as_ref();
    if listed.is_some_and(|handler| !handler.parsers.is_empty())
        && !config.parsers.contains(&Parser::Passthrough)
    {
        let message = "requests for paths that none of these parsers knows are answered with 400";
        let advice = format!(
            "add a {} to route them untouched",
            Parser::Passthrough.name()
        );
        notes.add(Level::Caution, "requestHandler.parsers", message, advice);
    }
}
