//! Finds out who asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::{Clock, Shutdown, Tasks};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::cache::{Cache, Quality};
use super::evidence::{self, Evidence};
use super::trust::{CONFIG_MAP, NAMESPACE};
use super::{FRESH, GRACE, Identity, QUESTIONS, REMEMBERED, Refusal, Trust, ask};
use crate::watch::{self, ObjectKey, Selection, Store, TroubleKind};

/// Finds out who asks. Clones share what is remembered.
#[derive(Clone, Debug)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    reviews: Reviews,
    /// The API server's ConfigMap; `None` where only tokens count.
    published: Option<Store<BTreeMap<String, String>>>,
    current: ArcSwap<Current>,
}

/// Whom to trust, and the ConfigMap's data that it was read from.
#[derive(Debug, Default)]
struct Current {
    data: Option<Arc<BTreeMap<String, String>>>,
    trust: Trust,
}

/// Token reviews, remembered.
struct Reviews {
    api: Api<TokenReview>,
    /// Whom tokens may be for, beside the API server.
    audience: Option<&'static str>,
    remembered: Mutex<Cache<Result<Identity, String>>>,
    questions: Semaphore,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Believes the aggregator, client certificates and bearer tokens, as the API server's ConfigMap
    /// `kube-system/extension-apiserver-authentication` says, which is followed until `shutdown` is stopped.
    pub fn start(client: Client, clock: Clock, shutdown: Shutdown, tasks: &Tasks) -> Self {
        let api = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
        let selection = Selection::named(CONFIG_MAP);
        let data = |map: ConfigMap| map.data;
        let store = watch::follow(api, selection, data, clock, shutdown, tasks);
        Self::new(client, clock, Some(store), None)
    }

    /// Believes bearer tokens only, those for the API server and those for `audience`; identity headers and client
    /// certificates prove nothing.
    pub fn tokens_only(client: Client, clock: Clock, audience: Option<&'static str>) -> Self {
        Self::new(client, clock, None, audience)
    }

    pub(super) fn new(
        client: Client,
        clock: Clock,
        published: Option<Store<BTreeMap<String, String>>>,
        audience: Option<&'static str>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                reviews: Reviews {
                    api: Api::all(client),
                    audience,
                    remembered: Mutex::new(Cache::new(REMEMBERED, FRESH, GRACE)),
                    questions: Semaphore::new(QUESTIONS),
                },
                published,
                current: ArcSwap::default(),
            }),
        }
    }

    /// Who sends a request with `headers` over a connection with the client certificates `peer`. Every header that
    /// tells who asks is taken out, so that nothing behind can believe one.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] when what was shown does not count, [`Refusal::Unavailable`] when the API server
    /// could not be asked about a token.
    pub async fn identify(
        &self,
        headers: &mut HeaderMap,
        peer: &[CertificateDer<'_>],
    ) -> Result<Identity, Refusal> {
        let current = self.current();
        let now_ms = self.inner.clock.unix_ms();
        let evidence = evidence::examine(&current.trust, headers, peer, now_ms);
        evidence::strip(&current.trust, headers);
        match evidence {
            Evidence::Identity(identity) => Ok(identity),
            Evidence::Nothing => Ok(Identity::anonymous()),
            Evidence::Refused(problem) => Err(Refusal::Unauthorized(problem)),
            Evidence::Token { token, problem } => {
                let reviewed = self.inner.reviews.review(token, self.inner.clock).await?;
                reviewed.map_err(|refused| {
                    Refusal::Unauthorized(
                        problem.map_or(refused.clone(), |problem| format!("{refused}; {problem}")),
                    )
                })
            }
        }
    }

    /// Resolves once it is known whom the API server trusts, or that it does not say.
    pub async fn synced(&self) {
        if let Some(store) = &self.inner.published {
            store.synced().await;
        }
    }

    /// Whether it is known whom the API server trusts, or that it does not say.
    pub fn is_synced(&self) -> bool {
        self.inner.published.as_ref().is_none_or(Store::is_synced)
    }

    /// What keeps the aggregator from being believed, in words for whoever runs the cluster; `None` when all is well.
    pub fn problem(&self) -> Option<String> {
        let store = self.inner.published.as_ref()?;
        let current = self.current();
        if let Some(problem) = current.trust.problems.first() {
            return Some(format!("ConfigMap {NAMESPACE}/{CONFIG_MAP}: {problem}"));
        }
        if current.trust.front_proxy.is_some() {
            return None;
        }
        if current.data.is_some() {
            return Some(format!(
                "ConfigMap {NAMESPACE}/{CONFIG_MAP} names no requestheader-client-ca-file: start the API server with --requestheader-client-ca-file and its companions, else every request through it is anonymous"
            ));
        }
        let health = store.health();
        let why = match health.trouble {
            Some(trouble) if trouble.kind == TroubleKind::Forbidden => format!(
                "it may not be read ({}): bind the Role extension-apiserver-authentication-reader in {NAMESPACE} to our service account",
                trouble.message
            ),
            Some(trouble) => trouble.message,
            None if health.synced => {
                "there is none: the API server publishes it when started with --client-ca-file or --requestheader-client-ca-file".into()
            }
            None => "it has not been read yet".into(),
        };
        Some(format!("ConfigMap {NAMESPACE}/{CONFIG_MAP}: {why}"))
    }

    /// Whom to trust now. What the ConfigMap last said stays when it is gone.
    fn current(&self) -> Arc<Current> {
        let current = self.inner.current.load_full();
        let key = ObjectKey::new(NAMESPACE, CONFIG_MAP);
        let store = self.inner.published.as_ref();
        let Some(data) = store.and_then(|store| store.get(&key)) else {
            return current;
        };
        if current
            .data
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &data))
        {
            return current;
        }
        let trust = Trust::read(&data, &current.trust);
        for problem in &trust.problems {
            tracing::error!(
                problem,
                "ConfigMap {NAMESPACE}/{CONFIG_MAP}: the last good part stays in force"
            );
        }
        let next = Arc::new(Current {
            data: Some(data),
            trust,
        });
        self.inner.current.store(Arc::clone(&next));
        next
    }
}

impl Reviews {
    /// Who holds `token`, or why nobody does.
    async fn review(
        &self,
        token: String,
        clock: Clock,
    ) -> Result<Result<Identity, String>, Refusal> {
        let key = Sha256::digest(token.as_bytes()).into();
        let remembered = self.remembered.lock().get(&key, clock.now());
        if let Some((verdict, Quality::Fresh)) = remembered {
            return Ok(verdict);
        }
        match self.verdict(&token).await {
            Ok(verdict) => {
                self.remembered
                    .lock()
                    .put(key, verdict.clone(), clock.now());
                Ok(verdict)
            }
            Err(problem) => match remembered {
                Some((verdict, _old)) => Ok(verdict),
                None => Err(Refusal::Unavailable {
                    question: "about the bearer token (TokenReview)",
                    problem,
                }),
            },
        }
    }

    /// What the API server says of `token`: a review answers for one audience, the API server's own where none is named.
    async fn verdict(&self, token: &str) -> Result<Result<Identity, String>, String> {
        if let Some(audience) = self.audience {
            let verdict = self.ask_for(token, Some(audience)).await?;
            if verdict.is_ok() {
                return Ok(verdict);
            }
        }
        self.ask_for(token, None).await
    }

    async fn ask_for(
        &self,
        token: &str,
        audience: Option<&str>,
    ) -> Result<Result<Identity, String>, String> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let answer = ask(&self.questions, self.api.create(&parameters, &review)).await?;
        Ok(read(answer, audience))
    }
}

fn read(review: TokenReview, audience: Option<&str>) -> Result<Identity, String> {
    let status = review.status.unwrap_or_default();
    // A reviewer that knows nothing of audiences names none: its token is for the API server.
    let fits = audience.is_none_or(|asked| {
        let found = status.audiences.iter().flatten();
        found.into_iter().any(|found| found == asked)
    });
    if status.authenticated != Some(true) || !fits {
        return Err("the bearer token is not valid".into());
    }
    let user = status.user.unwrap_or_default();
    let identity = Identity {
        user: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Ok(identity.authenticated())
}
