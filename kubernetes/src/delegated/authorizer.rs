//! Finds out whether somebody may.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::Clock;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::cache::{Cache, Quality};
use super::{FRESH, GRACE, Identity, MASTERS, QUESTIONS, REMEMBERED, Refusal, ask};

/// What somebody wants to do, in RBAC's words. Empty texts mean "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// Something with a resource.
    Resource {
        /// `get`, `list`, …
        verb: &'static str,
        /// API group.
        group: String,
        /// API version.
        version: String,
        /// Resource.
        resource: String,
        /// Subresource.
        subresource: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Something with a page that is no resource.
    Page {
        /// `get`, …
        verb: &'static str,
        /// The URL's path.
        path: String,
    },
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page { verb, path } => write!(f, "{verb} path {path:?}"),
            Self::Resource {
                verb,
                group,
                resource,
                subresource,
                namespace,
                ..
            } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                write!(
                    f,
                    "{verb} resource \"{resource}{slash}{subresource}\" in API group {group:?}"
                )?;
                if namespace.is_empty() {
                    f.write_str(" at the cluster scope")
                } else {
                    write!(f, " in the namespace {namespace:?}")
                }
            }
        }
    }
}

/// Finds out whether somebody may. Clones share what is remembered.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    api: Api<SubjectAccessReview>,
    remembered: Mutex<Cache<Verdict>>,
    questions: Semaphore,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Verdict {
    allowed: bool,
    reason: String,
}

impl Authorizer {
    /// Asks the API server that `client` reaches.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                api: Api::all(client),
                remembered: Mutex::new(Cache::new(REMEMBERED, FRESH, GRACE)),
                questions: Semaphore::new(QUESTIONS),
            }),
        }
    }

    /// Whether `identity` may do what `attributes` say.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when they may not, [`Refusal::Unavailable`] when the API server could not be asked.
    pub async fn allow(&self, identity: &Identity, attributes: &Attributes) -> Result<(), Refusal> {
        if identity.is_in(MASTERS) {
            return Ok(());
        }
        let verdict = self.verdict(question(identity, attributes)).await?;
        if verdict.allowed {
            return Ok(());
        }
        let reason = match verdict.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        Err(Refusal::Forbidden(format!(
            "{}forbidden: User {:?} cannot {attributes}{reason}",
            subject(attributes),
            identity.user
        )))
    }

    async fn verdict(&self, spec: SubjectAccessReviewSpec) -> Result<Verdict, Refusal> {
        let Inner {
            clock,
            api,
            remembered,
            questions,
        } = &*self.inner;
        let unavailable = |problem| Refusal::Unavailable {
            question: "who may (SubjectAccessReview)",
            problem,
        };
        let text = serde_json::to_vec(&spec).map_err(|error| unavailable(error.to_string()))?;
        let key = Sha256::digest(text).into();
        let known = remembered.lock().get(&key, clock.now());
        if let Some((verdict, Quality::Fresh)) = known {
            return Ok(verdict);
        }
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let parameters = PostParams::default();
        match ask(questions, api.create(&parameters, &review)).await {
            Ok(review) => {
                let status = review.status.unwrap_or_default();
                let verdict = Verdict {
                    allowed: status.allowed && status.denied != Some(true),
                    reason: status.reason.unwrap_or_default(),
                };
                remembered.lock().put(key, verdict.clone(), clock.now());
                Ok(verdict)
            }
            Err(problem) => match known {
                Some((verdict, _old)) => Ok(verdict),
                None => Err(unavailable(problem)),
            },
        }
    }
}

/// How a Kubernetes server begins the message: the resource, `x.group is `; nothing for a page.
fn subject(attributes: &Attributes) -> String {
    match attributes {
        Attributes::Resource {
            group,
            resource,
            name,
            ..
        } => {
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("{name:?} ")
            };
            format!("{resource}.{group} {name}is ")
        }
        Attributes::Page { .. } => String::new(),
    }
}

fn question(identity: &Identity, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (resource, page) = match attributes {
        Attributes::Resource {
            verb,
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let resource = ResourceAttributes {
                verb: some(verb),
                group: some(group),
                version: some(version),
                resource: some(resource),
                subresource: some(subresource),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            };
            (Some(resource), None)
        }
        Attributes::Page { verb, path } => {
            let page = NonResourceAttributes {
                verb: some(verb),
                path: some(path),
            };
            (None, Some(page))
        }
    };
    SubjectAccessReviewSpec {
        user: some(&identity.user),
        uid: some(&identity.uid),
        groups: Some(identity.groups.clone()),
        extra: (!identity.extra.is_empty()).then(|| identity.extra.clone()),
        resource_attributes: resource,
        non_resource_attributes: page,
    }
}
