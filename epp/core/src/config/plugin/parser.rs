//! Request parsers: which APIs a pool speaks.

/// A request parser. Each knows paths by their ends, but for the last, which takes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parser {
    /// `openai-parser`
    OpenAi,
    /// `anthropic-parser`
    Anthropic,
    /// `vllmhttp-parser`
    VllmHttp,
    /// `sglanghttp-parser`
    SglangHttp,
    /// `vllmgrpc-parser`
    VllmGrpc,
    /// `vertexai-parser`
    VertexAi,
    /// `passthrough-parser`
    Passthrough,
}

impl Parser {
    /// Those in force without a list: an unknown path is routed with its body unread.
    pub const AUTOMATIC: [Self; 4] = [
        Self::OpenAi,
        Self::Anthropic,
        Self::VllmHttp,
        Self::Passthrough,
    ];

    /// Whether it reads what endpoints of `protocol` are asked: gRPC needs HTTP/2, all else goes over both.
    pub fn serves(self, protocol: AppProtocol) -> bool {
        match self {
            Self::VllmGrpc | Self::VertexAi => protocol == AppProtocol::H2c,
            Self::OpenAi
            | Self::Anthropic
            | Self::VllmHttp
            | Self::SglangHttp
            | Self::Passthrough => true,
        }
    }

    /// The plugin type's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai-parser",
            Self::Anthropic => "anthropic-parser",
            Self::VllmHttp => "vllmhttp-parser",
            Self::SglangHttp => "sglanghttp-parser",
            Self::VllmGrpc => "vllmgrpc-parser",
            Self::VertexAi => "vertexai-parser",
            Self::Passthrough => "passthrough-parser",
        }
    }
}

/// What the endpoints of an InferencePool speak, its `appProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// `http`: HTTP/1.1 in the clear.
    #[default]
    Http,
    /// `kubernetes.io/h2c`: HTTP/2 in the clear.
    H2c,
}

impl AppProtocol {
    /// As the pool spells it; `None` = an unknown protocol.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "http" => Some(Self::Http),
            "kubernetes.io/h2c" => Some(Self::H2c),
            _ => None,
        }
    }
}
