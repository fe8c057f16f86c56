//! Paths that no parser knows.

use super::super::finding::Level;
use super::super::{Config, Parser, raw};
use super::Notes;

pub(super) fn check(document: &raw::Document, config: &Config, notes: &mut Notes) {
    let listed = document.request_handler.as_ref();
    let listed = listed.is_some_and(|handler| !handler.parsers.is_empty());
    let twin = document.parser.as_ref();
    let twin = twin.is_some_and(|parser| parser.plugin_ref.is_some());
    if (listed || twin) && !config.parsers.contains(&Parser::Passthrough) {
        let place = if listed {
            "requestHandler.parsers"
        } else {
            "parser"
        };
        let message = "requests for paths that none of these parsers knows are answered with 400";
        let advice = format!(
            "add a {} to route them untouched",
            Parser::Passthrough.name()
        );
        notes.add(Level::Caution, place, message, advice);
    }
}
