//! Which request parsers are in force, in order.

use super::error::ConfigError;
use super::finding::{Finding, Level};
use super::plugin::{Parser, Plugin, Role};
use super::raw;
use super::registry::Registry;

/// The listed parsers; without a list the automatic ones.
pub(super) fn parsers(
    handler: Option<raw::RequestHandler>,
    twin: Option<raw::OptionalRef>,
    registry: &mut Registry,
) -> Result<Vec<Parser>, ConfigError> {
    let mut named = Vec::new();
    if let Some(twin) = twin {
        registry.deprecated("parser", "parser", "requestHandler.parsers");
        named.extend(
            twin.plugin_ref
                .map(|name| ("parser.pluginRef".to_owned(), name)),
        );
    }
    let listed = handler.map(|handler| handler.parsers).unwrap_or_default();
    named.extend(listed.into_iter().enumerate().map(|(index, reference)| {
        let place = format!("requestHandler.parsers[{index}].pluginRef");
        (place, reference.plugin_ref)
    }));
    let mut parsers = Vec::new();
    for (place, name) in named {
        let plugin = registry.find(&place, &name, Role::Parser)?;
        let Some(parser) = parser(&plugin) else {
            continue;
        };
        if parsers.contains(&parser) {
            let message = format!("{} is listed twice; once is enough", parser.name());
            registry.note(Finding::new(
                Level::Unreachable,
                place,
                message,
                "leave it out",
            ));
        } else {
            parsers.push(parser);
        }
    }
    if parsers.is_empty() {
        parsers.extend(Parser::AUTOMATIC);
    }
    Ok(parsers)
}

/// The share of the answers that are read.
pub(super) fn read_answers(handler: Option<&raw::RequestHandler>) -> Result<f64, ConfigError> {
    match handler.and_then(|handler| handler.read_answers) {
        None => Ok(1.0),
        Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Some(share) => Err(ConfigError::value(
            "requestHandler.readAnswers",
            share,
            "must be between 0 and 1",
        )),
    }
}

fn parser(plugin: &Plugin) -> Option<Parser> {
    match plugin {
        Plugin::OpenaiParser(_) => Some(Parser::OpenAi),
        Plugin::AnthropicParser(_) => Some(Parser::Anthropic),
        Plugin::VllmHttpParser(_) => Some(Parser::VllmHttp),
        Plugin::SglangHttpParser(_) => Some(Parser::SglangHttp),
        Plugin::VllmGrpcParser(_) => Some(Parser::VllmGrpc),
        Plugin::VertexAiParser(_) => Some(Parser::VertexAi),
        Plugin::PassthroughParser(_) => Some(Parser::Passthrough),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppProtocol, Config};

    fn config(parsers: &[&str]) -> Config {
        let plugins: String = parsers
            .iter()
            .map(|name| format!("\n- {{type: {name}}}"))
            .collect();
        let list: String = parsers
            .iter()
            .map(|name| format!("\n  - {{pluginRef: {name}}}"))
            .collect();
        let section = match parsers {
            [] => String::new(),
            _ => format!("plugins:{plugins}\nrequestHandler:\n  parsers:{list}\n"),
        };
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        Config::from_yaml(&format!("{head}{section}")).unwrap()
    }

    #[test]
    fn without_a_list_the_automatic_one_holds() {
        assert_eq!(config(&[]).parsers, Parser::AUTOMATIC);
        assert_eq!(Config::default().parsers, Parser::AUTOMATIC);
    }

    #[test]
    fn a_list_holds_as_it_is_written_each_once() {
        let all = [
            Parser::VertexAi,
            Parser::VllmGrpc,
            Parser::SglangHttp,
            Parser::VllmHttp,
            Parser::Anthropic,
            Parser::OpenAi,
            Parser::Passthrough,
        ];
        let names: Vec<_> = all.iter().map(|parser| parser.name()).collect();
        assert_eq!(config(&names).parsers, all);
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {type: openai-parser}\n";
        let twice = "parser: {pluginRef: openai-parser}\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}\n";
        let twice = Config::from_yaml(&format!("{head}{twice}")).unwrap();
        assert_eq!(twice.parsers, [Parser::OpenAi]);
        assert!(
            twice.warnings.iter().any(|said| said.contains("twice")),
            "{:?}",
            twice.warnings
        );
    }

    #[test]
    fn answers_are_read_as_the_handler_says() {
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        let read = |share: &str| {
            let text = format!("{head}requestHandler: {{readAnswers: {share}}}\n");
            Config::from_yaml(&text).map(|config| config.read_answers)
        };
        assert_eq!(Config::from_yaml(head).unwrap().read_answers, 1.0);
        assert_eq!(read("0.25").unwrap(), 0.25);
        let error = read("2").unwrap_err().to_string();
        assert!(
            error.contains("requestHandler.readAnswers") && error.contains("between 0 and 1"),
            "{error}"
        );
    }

    #[test]
    fn grpc_parsers_need_http2() {
        let grpc = [Parser::VllmGrpc, Parser::VertexAi];
        for parser in grpc {
            assert!(parser.serves(AppProtocol::H2c) && !parser.serves(AppProtocol::Http));
        }
        for parser in Parser::AUTOMATIC {
            assert!(parser.serves(AppProtocol::H2c) && parser.serves(AppProtocol::Http));
        }
        assert_eq!(AppProtocol::parse("kubernetes.io/ws"), None);
    }
}
