//! Deployments of simulated model servers.

/// One Deployment of `headroom simulate server`.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Its name; its pods carry `app: <name>` too.
    pub name: String,
    /// The `app` label that a pool selects.
    pub app: String,
    /// Model served.
    pub model: String,
    /// Hardware profile of the simulator.
    pub profile: String,
    /// Node label `nvidia.com/gpu.product` asked for, and one GPU of it; `None` = no accelerator.
    pub accelerator: Option<String>,
    /// Seconds until a server answers.
    pub startup: f64,
    /// Replicas at first.
    pub replicas: u32,
    /// Annotations of the Deployment, as YAML flow mapping content.
    pub annotations: String,
    /// Further arguments of the simulator.
    pub arguments: Vec<String>,
}

impl Servers {
    /// Two replicas that are ready in two seconds.
    pub fn new(name: &str, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            app: name.to_owned(),
            model: model.to_owned(),
            profile: "llama-3.1-8b-rtxpro6000".to_owned(),
            accelerator: None,
            startup: 2.0,
            replicas: 2,
            annotations: String::new(),
            arguments: Vec::new(),
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        let Self {
            name,
            app,
            model,
            profile,
            startup,
            replicas,
            annotations,
            ..
        } = self;
        let (node, resources, accelerator) = match &self.accelerator {
            Some(product) => (
                format!("nodeSelector: {{nvidia.com/gpu.product: {product}}}"),
                "resources: {limits: {nvidia.com/gpu: 1}}",
                format!(", headroom.dev/accelerator: {product}"),
            ),
            None => (String::new(), "", String::new()),
        };
        let more: String = self
            .arguments
            .iter()
            .map(|argument| format!(", \"{argument}\""))
            .collect();
        format!(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{server: {name}}}}}
  template:
    metadata: {{labels: {{server: {name}, app: {app}{accelerator}}}}}
    spec:
      terminationGracePeriodSeconds: 60
      {node}
      containers:
      - name: server
        image: headroom
        args: [simulate, server, --host, 0.0.0.0, --port, "8000", --profile, "{profile}", --model, "{model}", --startup, "{startup}s", --drain, 50s{more}]
        readinessProbe: {{httpGet: {{path: /health, port: 8000}}, periodSeconds: 1, failureThreshold: 1}}
        {resources}
"#
        )
    }
}
