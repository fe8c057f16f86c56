//! Which members of each JSON body are read, and what for.

use super::paths::Api;

/// What a body looks like, as far as it is read.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) model: Named,
    /// What makes up the prompt, in the order that servers put it together.
    pub(super) prompt: &'static [Part],
    /// The client's bounds on the answer; the first that is given counts.
    pub(super) limits: &'static [&'static str],
    /// The same within `sampling_params`.
    pub(super) sampled_limit: Option<&'static str>,
    /// The member that keeps prompts of equal text apart.
    pub(super) salt: &'static str,
    /// Streams of this API may be asked for usage.
    pub(super) include_usage: bool,
}

/// What becomes of a body's `model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// It must be there, unless a rule for all models names one.
    Needed,
    /// It may be missing, and a rule for all models puts one there.
    Welcome,
    /// It may be missing, and then stays so.
    Optional,
    /// There is none, or it means nothing.
    Ignored,
}

/// A member that is part of the prompt.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// One of the members so marked must be there.
    pub(super) main: bool,
}

/// How a part is fed to the hasher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text, an array of texts, token ids, or an array of those.
    Texts,
    /// Token ids, with images and recordings placed by `features`.
    Ids,
    /// An array of messages.
    List,
    /// Text, or an array of blocks.
    Content,
    /// Whatever it is.
    Any,
    /// What changes the prompt from its first token and is no part of its text: it salts.
    Setting,
}

/// Most parts of a shape, and most limits.
pub(super) const MOST_PARTS: usize = 6;
pub(super) const MOST_LIMITS: usize = 3;

const fn main(name: &'static str, form: Form) -> Part {
    Part {
        name,
        form,
        main: true,
    }
}

const fn beside(name: &'static str, form: Form) -> Part {
    Part {
        name,
        form,
        main: false,
    }
}

/// Chat templates put tools and documents first.
const CHAT: &[Part] = &[
    beside("chat_template", Form::Setting),
    beside("chat_template_kwargs", Form::Setting),
    beside("tools", Form::Any),
    beside("documents", Form::Any),
    main("messages", Form::List),
];

/// What all others are written as differences to.
const PLAIN: Shape = Shape {
    model: Named::Needed,
    prompt: &[],
    limits: &[],
    sampled_limit: None,
    salt: "cache_salt",
    include_usage: false,
};

const COMPLETIONS: Shape = Shape {
    prompt: &[main("prompt", Form::Texts)],
    limits: &["max_tokens"],
    include_usage: true,
    ..PLAIN
};

const CHAT_COMPLETIONS: Shape = Shape {
    prompt: CHAT,
    limits: &["max_completion_tokens", "max_tokens"],
    include_usage: true,
    ..PLAIN
};

const EMBEDDINGS: Shape = Shape {
    prompt: &[main("messages", Form::List), main("input", Form::Texts)],
    ..PLAIN
};

const RESPONSES: Shape = Shape {
    prompt: &[
        beside("tools", Form::Any),
        beside("instructions", Form::Content),
        main("input", Form::Content),
    ],
    limits: &["max_output_tokens"],
    ..PLAIN
};

const CONVERSATIONS: Shape = Shape {
    model: Named::Optional,
    prompt: &[beside("items", Form::List)],
    ..PLAIN
};

const IMAGES: Shape = Shape {
    prompt: &[main("prompt", Form::Content)],
    ..PLAIN
};

/// Tools, then the system's text, then the messages: the order in which Anthropic caches them.
const MESSAGES: Shape = Shape {
    prompt: &[
        beside("tools", Form::Any),
        beside("system", Form::Content),
        main("messages", Form::List),
    ],
    limits: &["max_tokens"],
    ..PLAIN
};

/// Counting costs the server no prefill: the prompt is not looked at.
const COUNT_TOKENS: Shape = Shape {
    model: Named::Optional,
    ..PLAIN
};

const VLLM_GENERATE: Shape = Shape {
    model: Named::Welcome,
    prompt: &[main("token_ids", Form::Ids)],
    sampled_limit: Some("max_tokens"),
    ..PLAIN
};

const SGLANG_GENERATE: Shape = Shape {
    model: Named::Ignored,
    prompt: &[main("input_ids", Form::Texts), main("text", Form::Texts)],
    sampled_limit: Some("max_new_tokens"),
    salt: "extra_key",
    ..PLAIN
};

/// The endpoint that Vertex is asked for says which model it is, if the body does not.
const VERTEX_CHAT: Shape = Shape {
    model: Named::Optional,
    include_usage: false,
    ..CHAT_COMPLETIONS
};

const VERTEX_RAW: Shape = Shape {
    model: Named::Optional,
    prompt: &[
        beside("tools", Form::Any),
        beside("instructions", Form::Content),
        beside("system", Form::Content),
        main("messages", Form::List),
        main("prompt", Form::Texts),
        main("input", Form::Any),
    ],
    limits: &["max_completion_tokens", "max_tokens", "max_output_tokens"],
    ..PLAIN
};

/// The shape of `api`'s JSON body; `None` = it has none.
pub(super) fn of(api: Api) -> Option<&'static Shape> {
    Some(match api {
        Api::Completions => &COMPLETIONS,
        Api::ChatCompletions => &CHAT_COMPLETIONS,
        Api::CompletionsRender => &Shape {
            include_usage: false,
            ..COMPLETIONS
        },
        Api::ChatCompletionsRender => &Shape {
            include_usage: false,
            ..CHAT_COMPLETIONS
        },
        Api::Embeddings => &EMBEDDINGS,
        Api::Responses => &RESPONSES,
        Api::Conversations => &CONVERSATIONS,
        Api::Images => &IMAGES,
        Api::Messages => &MESSAGES,
        Api::CountTokens => &COUNT_TOKENS,
        Api::VllmGenerate => &VLLM_GENERATE,
        Api::SglangGenerate => &SGLANG_GENERATE,
        Api::VertexChat => &VERTEX_CHAT,
        Api::VertexRaw => &VERTEX_RAW,
        Api::VllmGrpcGenerate | Api::VllmGrpcEmbed | Api::Passthrough => return None,
    })
}
