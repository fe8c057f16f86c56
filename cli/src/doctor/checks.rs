//! What the facts mean, link by link.

use controller::kubernetes::apiservice::{foreign, name_of};
use controller::kubernetes::demand::Source;
use controller::kubernetes::explain::Explanation;
use controller::kubernetes::models::{Finding, Topic};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::facts::{ConditionFact, Facts, Known, LeaseFact, PodFact, Right, ValueFact};
use super::{Check, Outcome};

const API: &str = "metrics API";
const RIGHTS: &str = "access rights";
const CONTROLLER: &str = "controller";
const PICKERS: &str = "endpoint pickers";
const DEMAND: &str = "demand";
const MODELS: &str = "models";
const VALUES: &str = "values";
/// A value older than this is refused by the controller; one that an HPA gets all the same is told of.
const OLDEST_MS: u64 = 10_000;
/// The minor version from which HPAs may have minReplicas 0 without a feature gate.
const ZERO_SINCE: (u32, u32) = (1, 37);

/// Every check, in the order of the chain.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = api(facts);
    checks.extend(rights(facts));
    checks.extend(controller(facts));
    checks.extend(pickers(facts));
    checks.extend(demand(facts));
    checks.extend(models(facts));
    checks.extend(values(facts));
    checks
}

/// Whether the controller hears of every model's demand, from whom, and what it says of those that it does not hear.
fn demand(facts: &Facts) -> Vec<Check> {
    let judged = |(model, said): &(String, Known<Explanation>)| {
        let explanation = match said {
            Ok(explanation) => explanation,
            Err(why) => {
                return Check::new(DEMAND, Outcome::Unknown, format!("what the controller hears of {model}"))
                    .by(why)
                    .advice("a model is known some seconds after it is asked for; see that a controller leads, and that you may get pods/proxy in its namespace");
            }
        };
        let decision = explanation.decision.as_ref();
        let silent: Vec<String> = decision
            .into_iter()
            .flat_map(|decision| &decision.silent)
            .map(|one| format!("{} unheard for {} s", one.id, one.unheard.as_secs()))
            .collect();
        let (source, troubles) = match explanation.notes.split_first() {
            Some((source, rest)) => (source.as_str(), rest),
            None => ("", &[][..]),
        };
        let troubles: Vec<String> = troubles
            .iter()
            .filter(|note| note.starts_with("endpoint picker"))
            .cloned()
            .chain(silent)
            .collect();
        if !troubles.is_empty() {
            return Check::wrong(DEMAND, format!("the controller does not hear all endpoint pickers of {model}: nothing is taken away for it"))
                .by(troubles.join("; "))
                .advice("see that the picker runs (its log), that a NetworkPolicy lets the controller in, and that --epp-ca-file and --epp-token-file are those that the picker was given");
        }
        if source.is_empty() || source == Source::None.to_string() {
            return Check::wrong(DEMAND, format!("nothing tells the demand of {model}"))
                .by(source)
                .advice("label the pods of `headroom epp` with the pool, or give the controller --prometheus-url");
        }
        Check::good(DEMAND, format!("{model}: {source}"))
    };
    facts.explained.iter().map(judged).collect()
}

/// Whether an HPA reads decisions by itself, so that it hangs on our APIServices.
fn read_by_hpas(facts: &Facts) -> bool {
    let Ok(asked) = &facts.asked else { return true };
    let variants = asked.models.iter().flat_map(|spec| &spec.variants);
    variants
        .filter_map(|variant| variant.hpa.as_ref())
        .any(|hpa| hpa.scaled_object.is_none() && !hpa.reads.is_empty())
}

/// One of our APIServices leads nowhere, or to somebody else: wrong only for those who read it.
fn not_ours(facts: &Facts, what: String) -> Check {
    if read_by_hpas(facts) {
        Check::wrong(API, what)
    } else {
        Check::note(
            API,
            what + ", and no HorizontalPodAutoscaler reads Headroom's metrics",
        )
    }
}

fn api(facts: &Facts) -> Vec<Check> {
    let mut checks: Vec<Check> = facts
        .api_services
        .iter()
        .map(|(group, version, found)| {
            let name = name_of(group, version);
            match found {
                Err(why) => Check::unknown(API, format!("APIService {name}"), why),
                Ok(None) => not_ours(facts, format!("APIService {name} does not exist"))
                    .by("the API server answers 404")
                    .advice("install it with the chart (controller.metricsAPI), or let KEDA ask Headroom with an external-push trigger"),
                Ok(Some(found)) => api_service(facts, &name, found),
            }
        })
        .collect();
    let key = "requestheader-client-ca-file";
    checks.push(match &facts.authentication {
        Err(why) => Check::unknown(API, "ConfigMap kube-system/extension-apiserver-authentication", why),
        Ok(Some(data)) if data.get(key).is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")) => {
            Check::good(API, "the API server names the authority of its front proxy")
        }
        Ok(found) => {
            let missing = if found.is_some() { "it has no such key" } else { "it does not exist" };
            Check::wrong(API, format!("the API server names no {key}: everybody it proxies is anonymous"))
                .by(format!("ConfigMap kube-system/extension-apiserver-authentication: {missing}"))
                .advice("start kube-apiserver with --requestheader-client-ca-file and --proxy-client-cert-file (the aggregation layer)")
        }
    });
    checks
}

fn api_service(facts: &Facts, name: &str, found: &APIService) -> Check {
    let service = &facts.service;
    if let Some(owner) = foreign(found, service) {
        return not_ours(facts, format!("APIService {name} belongs to {owner}"))
            .by(format!("expected Service {}/{}", service.namespace, service.name))
            .advice("HorizontalPodAutoscalers cannot read Headroom's metrics there: remove that provider if nothing needs it, or let KEDA ask Headroom with an external-push trigger; where Headroom is installed under another name, say --controller-namespace and --service");
    }
    let conditions = found
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let available = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Available");
    if let Some(condition) = available.filter(|condition| condition.status != "True") {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let evidence = format!("{}: {}", text(&condition.reason), text(&condition.message));
        return Check::wrong(API, format!("APIService {name} is not available"))
            .by(evidence)
            .advice("just installed, it takes up to a minute; else see that controller pods are ready and that the API server reaches them (firewall, NetworkPolicy)");
    }
    let Some(spec) = &found.spec else {
        return Check::wrong(API, format!("APIService {name} has no spec"));
    };
    if spec.insecure_skip_tls_verify == Some(true) {
        return Check::wrong(
            API,
            format!("APIService {name} skips the verification of certificates"),
        )
        .by("spec.insecureSkipTLSVerify is true")
        .advice("remove the field; the controller keeps spec.caBundle");
    }
    let bundle = spec.ca_bundle.as_ref().map_or(&[][..], |bundle| &bundle.0);
    if !String::from_utf8_lossy(bundle).contains("BEGIN CERTIFICATE") {
        return Check::wrong(API, format!("APIService {name} has no authority to check our certificate by"))
            .by("spec.caBundle is empty or no certificate")
            .advice("let the controller's account patch the APIService, or have cert-manager inject the bundle");
    }
    match available {
        Some(_) => Check::good(API, format!("{name} is ours and available")),
        None => Check::wrong(
            API,
            format!("nobody has looked yet whether {name} is available"),
        )
        .by("no condition Available")
        .advice("wait half a minute; if it stays so, look at kube-apiserver's log"),
    }
}

fn rights(facts: &Facts) -> Vec<Check> {
    let judged = |right: &Right| {
        let Right {
            who,
            what,
            allowed,
            advice,
        } = right;
        match allowed {
            Ok(true) => Check::good(RIGHTS, format!("{who} may {what}")),
            Ok(false) => Check::wrong(RIGHTS, format!("{who} may not {what}"))
                .by("SubjectAccessReview: denied")
                .advice(*advice),
            Err(why) => Check::unknown(RIGHTS, format!("whether {who} may {what}"), why),
        }
    };
    facts.rights.iter().map(judged).collect()
}

fn controller(facts: &Facts) -> Vec<Check> {
    let home = &facts.service.namespace;
    let pods = match &facts.controllers {
        Err(why) => Check::unknown(CONTROLLER, format!("the controller's pods in {home}"), why),
        Ok(pods) if pods.is_empty() => Check::wrong(
            CONTROLLER,
            format!("there is no controller in namespace {home}"),
        )
        .by(format!(
            "no pod with the label {}=controller",
            names::label::COMPONENT
        ))
        .advice("install the chart, or name its namespace with --controller-namespace"),
        Ok(pods) => ready(CONTROLLER, "controller", pods),
    };
    vec![pods, lease(facts)]
}

fn lease(facts: &Facts) -> Check {
    let name = names::kubernetes::CONTROLLER;
    let (holder, lease) = match &facts.lease {
        Err(why) => return Check::unknown(CONTROLLER, format!("Lease {name}"), why),
        Ok(Some(
            lease @ LeaseFact {
                holder: Some(holder),
                ..
            },
        )) => (holder, lease),
        Ok(_) => {
            return Check::wrong(CONTROLLER, "no controller leads: nothing is decided")
                .by(format!("Lease {name} is held by nobody"))
                .advice("look at the controllers' logs: they may not be able to write the Lease");
        }
    };
    let age = facts.now_ms.saturating_sub(lease.renewed_ms) / 1_000;
    if age > lease.duration_seconds {
        return Check::wrong(
            CONTROLLER,
            format!("{holder} leads, and has not renewed its Lease"),
        )
        .by(format!(
            "renewed {age} s ago, valid for {} s",
            lease.duration_seconds
        ))
        .advice(
            "look at the controllers' logs; a clock that is off on this machine looks the same",
        );
    }
    Check::good(CONTROLLER, format!("{holder} leads"))
}

fn ready(area: &'static str, role: &str, pods: &[PodFact]) -> Check {
    let waiting: Vec<&str> = pods
        .iter()
        .filter(|pod| !pod.ready)
        .map(|pod| pod.name.as_str())
        .collect();
    let (count, all) = (pods.len() - waiting.len(), pods.len());
    let what = format!("{count} of {all} {role} pods are ready");
    if waiting.is_empty() {
        return Check::good(area, what);
    }
    let evidence = format!("not ready: {}", waiting.join(", "));
    let check = if count == 0 {
        Check::wrong(area, what)
    } else {
        Check::note(area, what)
    };
    check
        .by(evidence)
        .advice("look at the pods' Events and logs")
}

fn pickers(facts: &Facts) -> Vec<Check> {
    let (pools, pickers) = match (&facts.pools, &facts.pickers) {
        (Err(why), _) => return vec![Check::unknown(PICKERS, "InferencePools", why)],
        (_, Err(why)) => return vec![Check::unknown(PICKERS, "endpoint picker pods", why)],
        (Ok(pools), Ok(pickers)) => (pools, pickers),
    };
    let mut wanted: Vec<(&str, &str)> = pools
        .iter()
        .map(|(namespace, pool)| (namespace.as_str(), pool.as_str()))
        .collect();
    let specs = facts.asked.iter().flat_map(|asked| &asked.models);
    for spec in specs {
        let pool = (
            spec.key.namespace.as_str(),
            spec.pool.as_deref().unwrap_or_default(),
        );
        if !pool.1.is_empty() && !wanted.contains(&pool) {
            wanted.push(pool);
        }
    }
    if wanted.is_empty() {
        return vec![Check::note(
            PICKERS,
            "there is no InferencePool, and no model names a pool",
        )];
    }
    let mut checks = Vec::new();
    for (namespace, pool) in wanted {
        let pods: Vec<PodFact> = pickers
            .iter()
            .filter(|(of, pod)| of == pool && pod.namespace == namespace)
            .map(|(_, pod)| pod.clone())
            .collect();
        if pods.is_empty() {
            let label = names::label::POOL;
            checks.push(
                Check::wrong(PICKERS, format!("pool {namespace}/{pool} has no endpoint picker of Headroom's"))
                    .by(format!("no pod with the label {label}={pool}"))
                    .advice(format!("label the pods of `headroom epp` with {label}: {pool}; with another endpoint picker give the controller --prometheus-url")),
            );
            continue;
        }
        checks.push(ready(
            PICKERS,
            &format!("{namespace}/{pool} endpoint picker"),
            &pods,
        ));
        let closed = pods
            .iter()
            .find(|pod| !pod.ports.is_empty() && !pod.ports.contains(&names::admin::PORT));
        if let Some(pod) = closed {
            checks.push(
                Check::note(
                    PICKERS,
                    format!(
                        "{} does not declare the port that demand is read from",
                        pod.name
                    ),
                )
                .by(format!("containerPorts {:?}", pod.ports))
                .advice(format!(
                    "declare containerPort {} (named admin), or whatever --admin-port says",
                    names::admin::PORT
                )),
            );
        }
    }
    checks
}

fn models(facts: &Facts) -> Vec<Check> {
    let asked = match &facts.asked {
        Err(why) => return vec![Check::unknown(MODELS, "what is asked to be sized", why)],
        Ok(asked) => asked,
    };
    let mut checks = Vec::new();
    if asked.models.is_empty() {
        checks.push(
            Check::note(MODELS, "no model is asked to be sized").advice(format!(
                "create a ModelScaler, or annotate a HorizontalPodAutoscaler or Deployment with {}",
                names::annotation::MODEL.canonical
            )),
        );
    }
    for spec in &asked.models {
        let findings: Vec<Check> = spec.findings.iter().map(found).collect();
        if findings.iter().all(|check| check.outcome != Outcome::Wrong) {
            checks.push(Check::good(
                MODELS,
                format!("{} is sized as {} asks", spec.key, spec.source),
            ));
        }
        checks.extend(findings);
        for (place, policy) in spec.variants.iter().zip(&spec.policy.variants) {
            let Some(hpa) = &place.hpa else { continue };
            if hpa.min == 0 && facts.version.is_some_and(|version| version < ZERO_SINCE) {
                checks.push(zero_gate(&policy.name, &hpa.source.name, facts.version));
            }
        }
    }
    checks.extend(asked.findings.iter().map(found));
    checks.extend(facts.conditions.iter().filter_map(condition));
    checks
}

fn found(finding: &Finding) -> Check {
    let outcome = if finding.note {
        Outcome::Note
    } else {
        Outcome::Wrong
    };
    let evidence = match finding.topic {
        Topic::Spec | Topic::Conflict | Topic::Autoscaler => finding.about.to_string(),
        Topic::Target | Topic::Capacity => format!("asked for by {}", finding.about),
    };
    // The message says what to do by itself.
    Check::new(MODELS, outcome, finding.message.clone())
        .by(format!("{} ({})", evidence, finding.reason))
}

fn zero_gate(variant: &str, hpa: &str, version: Option<(u32, u32)>) -> Check {
    let (major, minor) = version.unwrap_or_default();
    Check::note(MODELS, format!("variant {variant} may go to zero, which takes the feature gate HPAScaleToZero before 1.37"))
        .by(format!("HorizontalPodAutoscaler {hpa} has minReplicas 0, the cluster is {major}.{minor}"))
        .advice("see that the gate is on in kube-controller-manager too: without it the HorizontalPodAutoscaler never leaves zero")
}

fn condition(fact: &ConditionFact) -> Option<Check> {
    let ConditionFact {
        about,
        kind,
        status,
        reason,
        message,
    } = fact;
    // An HPA that limits or pauses is not wrong; one that cannot compute is.
    if status != "False" || !matches!(kind.as_str(), "ScalingActive" | "AbleToScale" | "Ready") {
        return None;
    }
    let paused = reason == "ScalingDisabled";
    let what = match (kind.as_str(), paused) {
        ("Ready", _) => format!("{about} is not Ready"),
        (_, true) => format!("{about} is paused: its target has 0 replicas by somebody's hand"),
        _ => format!("{about} does not scale ({kind})"),
    };
    let advice = if paused {
        "scale the target to 1, and the HorizontalPodAutoscaler acts again"
    } else {
        "the message says what is missing; the other checks say where"
    };
    Some(
        Check::wrong(MODELS, what)
            .by(format!("{reason}: {message}"))
            .advice(advice),
    )
}

fn values(facts: &Facts) -> Vec<Check> {
    let judged = |fact: &ValueFact| {
        let ValueFact { hpa, path, answer } = fact;
        match answer {
            Err(why) => Check::wrong(VALUES, format!("{hpa} gets no value"))
                .by(format!("GET {path}: {why}"))
                .advice("an answer 503 says what the controller waits for; 403 that you may not read the metric; 404 that the series or metric is unknown"),
            Ok(items) if items.is_empty() => Check::wrong(VALUES, format!("{hpa} gets an empty list"))
                .by(format!("GET {path}"))
                .advice("correct its selector: no series has these labels"),
            Ok(items) => {
                let oldest = items.iter().map(|(_, at)| facts.now_ms.saturating_sub(*at)).max();
                let shown: Vec<String> = items.iter().map(|(value, _)| value.to_string()).collect();
                let shown = shown.join(" + ");
                match oldest {
                    Some(age) if age > OLDEST_MS => {
                        Check::wrong(VALUES, format!("{hpa} gets {shown}, which is {} s old", age / 1_000))
                            .by(format!("GET {path}"))
                            .advice("the replica that answered is cut off from the leader; a clock that is off on this machine looks the same")
                    }
                    _ => Check::good(VALUES, format!("{hpa} gets {shown}")),
                }
            }
        }
    };
    facts.values.iter().map(judged).collect()
}

#[cfg(test)]
mod tests;
