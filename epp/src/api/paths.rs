//! Which API a request speaks, by its path.

use super::error::{ErrorShape, RequestError, shortened};
use epp_core::config::{AppProtocol, Parser};

/// How a request's body is read, and its answer watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI's `completions`.
    Completions,
    /// OpenAI's `chat/completions`.
    ChatCompletions,
    /// vLLM's `completions/render`: tokens instead of an answer.
    CompletionsRender,
    /// vLLM's `chat/completions/render`.
    ChatCompletionsRender,
    /// OpenAI's `embeddings`.
    Embeddings,
    /// OpenAI's `responses`.
    Responses,
    /// OpenAI's `conversations`: items kept for later responses.
    Conversations,
    /// OpenAI's `images/generations`.
    Images,
    /// Anthropic's `messages`.
    Messages,
    /// Anthropic's `messages/count_tokens`.
    CountTokens,
    /// vLLM's `inference/v1/generate`: tokens in, tokens out.
    VllmGenerate,
    /// SGLang's `/generate`.
    SglangGenerate,
    /// vLLM's `Generate` over gRPC.
    VllmGrpcGenerate,
    /// vLLM's `Embed` over gRPC.
    VllmGrpcEmbed,
    /// Vertex's `ChatCompletions`: OpenAI's chat inside a protobuf message, over gRPC.
    VertexChat,
    /// Vertex's `RawPredict` and `StreamRawPredict`: any of OpenAI's bodies inside one.
    VertexRaw,
    /// Anything else: routed by its headers, its bytes unread.
    #[default]
    Passthrough,
}

impl Api {
    /// Whether the answer is looked at for its first token and its usage.
    pub fn watched(self) -> bool {
        !matches!(
            self,
            Self::CompletionsRender
                | Self::ChatCompletionsRender
                | Self::Conversations
                | Self::CountTokens
                | Self::Passthrough
        )
    }

    /// Whether requests and answers are gRPC messages.
    pub fn grpc(self) -> bool {
        matches!(
            self,
            Self::VllmGrpcGenerate | Self::VllmGrpcEmbed | Self::VertexChat | Self::VertexRaw
        )
    }

    /// How its clients are told of errors.
    pub fn errors(self) -> ErrorShape {
        match self {
            Self::Messages | Self::CountTokens => ErrorShape::Anthropic,
            _ if self.grpc() => ErrorShape::Grpc,
            _ => ErrorShape::OpenAi,
        }
    }
}

/// Where an API is found: at the end of a path, whole segments only, or at one path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    End(&'static str),
    Whole(&'static str),
}

impl Place {
    fn text(self) -> &'static str {
        match self {
            Self::End(text) | Self::Whole(text) => text,
        }
    }

    fn is(self, path: &str) -> bool {
        match self {
            Self::Whole(whole) => path == whole,
            // A gRPC service's name follows the dot after its package.
            Self::End(end) => path
                .strip_suffix(end)
                .is_some_and(|before| before.is_empty() || before.ends_with(['/', '.'])),
        }
    }
}

/// The paths a parser knows; none = it takes any.
fn places(parser: Parser) -> &'static [(Place, Api)] {
    use Place::{End, Whole};
    match parser {
        Parser::OpenAi => &[
            (End("chat/completions"), Api::ChatCompletions),
            (End("completions"), Api::Completions),
            (End("embeddings"), Api::Embeddings),
            (End("responses"), Api::Responses),
            (End("conversations"), Api::Conversations),
            (End("chat/completions/render"), Api::ChatCompletionsRender),
            (End("completions/render"), Api::CompletionsRender),
            (End("images/generations"), Api::Images),
        ],
        Parser::Anthropic => &[
            (End("messages"), Api::Messages),
            (End("messages/count_tokens"), Api::CountTokens),
        ],
        Parser::VllmHttp => &[(End("inference/v1/generate"), Api::VllmGenerate)],
        Parser::SglangHttp => &[(Whole("/generate"), Api::SglangGenerate)],
        Parser::VllmGrpc => &[
            (
                End("vllm.grpc.engine.VllmEngine/Generate"),
                Api::VllmGrpcGenerate,
            ),
            (End("vllm.grpc.engine.VllmEngine/Embed"), Api::VllmGrpcEmbed),
        ],
        Parser::VertexAi => &[
            (End("PredictionService/ChatCompletions"), Api::VertexChat),
            (End("PredictionService/StreamRawPredict"), Api::VertexRaw),
            (End("PredictionService/RawPredict"), Api::VertexRaw),
        ],
        Parser::Passthrough => &[],
    }
}

/// The parsers of a configuration.
#[derive(Clone, Debug)]
pub struct Parsers {
    /// Longest first; of equal ones the first parser's.
    places: Vec<(Place, Api)>,
    /// As listed.
    parsers: Vec<Parser>,
}

impl Parsers {
    /// In the order of the configuration.
    pub fn new(parsers: &[Parser]) -> Self {
        let mut places: Vec<_> = parsers
            .iter()
            .flat_map(|parser| places(*parser))
            .copied()
            .collect();
        places.sort_by_key(|(place, _)| std::cmp::Reverse(place.text().len()));
        Self {
            places,
            parsers: parsers.to_vec(),
        }
    }

    /// The first parser whose requests endpoints of `protocol` cannot serve; `None` = all are well.
    pub fn unfit_for(&self, protocol: AppProtocol) -> Option<Parser> {
        let mut parsers = self.parsers.iter().copied();
        parsers.find(|parser| !parser.serves(protocol))
    }

    /// The API at `path`; the query string does not count.
    ///
    /// # Errors
    /// [`RequestError::Path`] when no parser knows it and none takes any.
    pub fn of(&self, path: &str) -> Result<Api, RequestError> {
        let bare = path.split_once('?').map_or(path, |(path, _)| path);
        let known = self.places.iter().find(|(place, _)| place.is(bare));
        match known {
            Some((_, api)) => Ok(*api),
            None if self.parsers.contains(&Parser::Passthrough) => Ok(Api::Passthrough),
            None => Err(RequestError::Path {
                path: shortened(path.as_bytes()),
                known: self.known(),
            }),
        }
    }

    fn known(&self) -> String {
        let mut known: Vec<_> = self.places.iter().map(|(place, _)| place.text()).collect();
        known.sort_unstable();
        known.dedup();
        known.join(", ")
    }
}

impl Default for Parsers {
    fn default() -> Self {
        Self::new(&Parser::AUTOMATIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Parser; 7] = [
        Parser::OpenAi,
        Parser::Anthropic,
        Parser::VllmHttp,
        Parser::SglangHttp,
        Parser::VllmGrpc,
        Parser::VertexAi,
        Parser::Passthrough,
    ];

    #[test]
    fn every_path_of_every_parser_selects_its_api() {
        let parsers = Parsers::new(&ALL);
        for (path, api) in [
            ("/v1/completions", Api::Completions),
            (
                "/v1/chat/completions?x=/v1/completions",
                Api::ChatCompletions,
            ),
            ("/v1/completions/render", Api::CompletionsRender),
            ("/v1/chat/completions/render", Api::ChatCompletionsRender),
            ("/v1/embeddings", Api::Embeddings),
            ("/v1/responses", Api::Responses),
            ("/v1/conversations", Api::Conversations),
            ("/tenant/openai/v1/images/generations", Api::Images),
            ("/v1/messages", Api::Messages),
            ("/v1/messages/count_tokens", Api::CountTokens),
            ("/inference/v1/generate", Api::VllmGenerate),
            ("/generate", Api::SglangGenerate),
            (
                "/vllm.grpc.engine.VllmEngine/Generate",
                Api::VllmGrpcGenerate,
            ),
            ("/vllm.grpc.engine.VllmEngine/Embed", Api::VllmGrpcEmbed),
            (
                "/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions",
                Api::VertexChat,
            ),
            (
                "/google.cloud.aiplatform.v1.PredictionService/RawPredict",
                Api::VertexRaw,
            ),
            (
                "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict",
                Api::VertexRaw,
            ),
            ("/v1/generate", Api::Passthrough),
            ("/v1/my-completions", Api::Passthrough),
            ("/v1/models", Api::Passthrough),
            ("/", Api::Passthrough),
        ] {
            assert_eq!(parsers.of(path), Ok(api), "{path}");
        }
    }

    #[test]
    fn a_path_is_the_parsers_that_is_listed() {
        let parsers = Parsers::new(&[Parser::Anthropic]);
        assert_eq!(parsers.of("/v1/messages"), Ok(Api::Messages));
        let error = parsers.of("/v1/completions?a=b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no parser for path \"/v1/completions?a=b\": this pool serves messages, messages/count_tokens"
        );
        assert_eq!(error.status(), 400);
        assert_eq!(
            Parsers::default().of("/generate"),
            Ok(Api::Passthrough),
            "SGLang's parser is not automatic"
        );
    }

    #[test]
    fn errors_are_told_as_each_apis_clients_expect() {
        assert_eq!(Api::CountTokens.errors(), ErrorShape::Anthropic);
        assert_eq!(Api::VertexRaw.errors(), ErrorShape::Grpc);
        assert_eq!(Api::SglangGenerate.errors(), ErrorShape::OpenAi);
        assert_eq!(Api::Passthrough.errors(), ErrorShape::OpenAi);
    }
}
