//go:build cluster

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"headroom.dev/tests/cluster/internal/layout"
)

// patience with anything that the cluster does; nothing here waits that long unless it is broken.
const patience = time.Minute

// harness drives one cluster through the built binary, as other tests do.
type harness struct {
	*testing.T
	binary, directory string
}

// cluster runs a command and gives what it prints.
func (h harness) cluster(args ...string) string {
	h.Helper()
	command := exec.Command(h.binary, args...)
	var complaints strings.Builder
	command.Stderr = &complaints
	output, err := command.Output()
	if err != nil {
		h.Fatalf("cluster %s: %v: %s%s", strings.Join(args, " "), err, output, complaints.String())
	}
	return string(output)
}

func (h harness) kubectl(args ...string) string {
	h.Helper()
	return h.cluster(append([]string{"kubectl", "--dir", h.directory}, args...)...)
}

func (h harness) apply(manifest string) {
	h.Helper()
	path := filepath.Join(h.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		h.Fatal(err)
	}
	h.kubectl("apply", "-f", path)
}

// until asks again and again for a value until it is the wanted one.
func (h harness) until(want string, ask func() string) {
	h.Helper()
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = ask(); got == want {
			return
		}
	}
	h.Fatalf("it is %q, not %q", got, want)
}

// get reads a field by JSON path; nothing where the object or the API server is away.
func (h harness) get(path string, what ...string) string {
	output, err := exec.Command(h.binary, append([]string{"kubectl", "--dir", h.directory, "get", "-o", "jsonpath=" + path}, what...)...).Output()
	if err != nil {
		return ""
	}
	return string(output)
}

func (h harness) status() layout.Description {
	h.Helper()
	var description layout.Description
	if err := json.Unmarshal([]byte(h.cluster("status", "--dir", h.directory)), &description); err != nil {
		h.Fatal(err)
	}
	return description
}

// fetch gives the body of a page, or the error.
func fetch(address string) string {
	response, err := http.Get(address)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// resolve asks the cluster's name server.
func resolve(server, name string) string {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	found, err := resolver.LookupHost(context.Background(), name)
	if err != nil {
		return err.Error()
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

const web = `
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {page.txt: "first, served at 0.0.0.0"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      nodeSelector: {nvidia.com/gpu.product: H100}
      volumes: [{name: page, configMap: {name: page}}]
      containers:
      - name: server
        image: example.org/web:v1
        args: [-m, http.server, "$(PORT)", --bind, 0.0.0.0, --directory, /srv/page]
        env: [{name: PORT, value: "8000"}]
        volumeMounts: [{name: page, mountPath: /srv/page}]
        resources: {limits: {nvidia.com/gpu: 1}}
        readinessProbe: {httpGet: {path: /, port: 8000}, periodSeconds: 1}
`

func start(t *testing.T) harness {
	binary, err := filepath.Abs("../../.tools/cluster/cluster")
	if err != nil {
		t.Fatal(err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	// A path longer than a Unix socket's may be.
	directory := filepath.Join(t.TempDir(), strings.Repeat("long", 20), "cluster")
	h := harness{T: t, binary: binary, directory: directory}
	t.Setenv("KUBECONFIG", "")
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := exec.Command("sh", "-c", "tail -n 20 "+directory+"/logs/*.log "+directory+"/logs/pods/*.log").CombinedOutput()
			t.Logf("%s", logs)
		}
		_ = exec.Command(binary, "down", "--dir", directory).Run()
	})
	line := h.cluster("up", "--detach", "--dir", directory, "--node", "h100-0,product=H100,gpu=2", "--node", "l40s-0,product=L40S,gpu=1",
		"--image", "web="+python, "--image", "kubectl="+binary, "--crds", "third-party")
	var description layout.Description
	if err := json.Unmarshal([]byte(line), &description); err != nil || !description.Ready || len(description.Components) != 5 {
		t.Fatalf("up printed %s", line)
	}
	t.Logf("ready after %.1f s", description.StartSeconds)
	return h
}

func TestCluster(t *testing.T) {
	h := start(t)
	for _, step := range []struct {
		name string
		test func(harness)
	}{
		{"pods are processes", podsAreProcesses},
		{"a full pool leaves a pod pending", fullPool},
		{"a killed process is started again", killedProcess},
		{"components go and come back", faults},
		{"service accounts", serviceAccounts},
		{"init containers and sidecars and a graceful end", lifecycle},
		{"startup and liveness probes", probing},
		{"autoscaling to zero is accepted", scaleToZero},
		{"third-party CRDs", thirdPartyCRDs},
		{"nothing remains", nothingRemains},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.test(harness{t, h.binary, h.directory}) }) {
			return
		}
	}
}

func podsAreProcesses(h harness) {
	h.apply(web)
	h.until("2", func() string { return h.get("{.status.readyReplicas}", "deployment/web") })
	addresses := strings.Fields(h.get("{.items[*].status.podIP}", "pods", "-l", "app=web"))
	if len(addresses) != 2 || addresses[0] == addresses[1] {
		h.Fatalf("pods have the addresses %v", addresses)
	}
	for _, address := range addresses {
		if got, want := fetch("http://"+address+":8000/page.txt"), "first, served at "+address; got != want {
			h.Errorf("the page is %q, not %q", got, want)
		}
	}
	h.kubectl("expose", "deployment/web", "--port=8000")
	slices.Sort(addresses)
	h.until(strings.Join(addresses, " "), func() string { return resolve(h.status().DNS, "web.default.svc.cluster.local") })
	h.kubectl("patch", "configmap/page", "-p", `{"data": {"page.txt": "second"}}`)
	h.until("second", func() string { return fetch("http://" + addresses[0] + ":8000/page.txt") })
	h.until("true", func() string {
		return fmt.Sprint(strings.Contains(h.kubectl("logs", "--tail=5", "deployment/web"), "GET /page.txt"))
	})
}

func fullPool(h harness) {
	h.kubectl("scale", "deployment/web", "--replicas=3")
	condition := `{.items[*].status.conditions[?(@.reason=="Unschedulable")].message}`
	h.until("true", func() string {
		return fmt.Sprint(strings.Contains(h.get(condition, "pods", "-l", "app=web"), "Insufficient nvidia.com/gpu"))
	})
	if ready := h.get("{.status.readyReplicas}", "deployment/web"); ready != "2" {
		h.Errorf("%s replicas are ready on two GPUs", ready)
	}
	h.kubectl("scale", "deployment/web", "--replicas=2")
	h.until("2", func() string { return h.get("{.status.replicas}", "deployment/web") })
}

// aPod gives the name and the process of one of the pods that are ready.
func (h harness) aPod() (name, pid string) {
	h.Helper()
	fields := strings.Fields(h.get(`{.items[0].metadata.name} {.items[0].status.containerStatuses[0].containerID}`, "pods", "-l", "app=web"))
	if len(fields) != 2 {
		h.Fatalf("no pod: %q", fields)
	}
	pid, _, _ = strings.Cut(strings.TrimPrefix(fields[1], "process://"), "-")
	return fields[0], pid
}

func killedProcess(h harness) {
	name, pid := h.aPod()
	if err := exec.Command("kill", "-9", pid).Run(); err != nil {
		h.Fatal(err)
	}
	h.until("1 137 true", func() string {
		return h.get(`{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].ready}`, "pod/"+name)
	})
}

func faults(h harness) {
	address := h.get("{.items[0].status.podIP}", "pods", "-l", "app=web")
	for _, component := range []string{"etcd", "apiserver"} {
		h.cluster("stop", component, "--signal", "KILL", "--dir", h.directory)
		if state := h.status().Components[component].State; state != "stopped" {
			h.Errorf("%s is %s after stop", component, state)
		}
		if got := fetch("http://" + address + ":8000/page.txt"); got != "second" {
			h.Errorf("without %s the pod answers %q", component, got)
		}
		h.cluster("start", component, "--dir", h.directory)
		h.until("2", func() string { return h.get("{.status.readyReplicas}", "deployment/web") })
	}
	for _, component := range []string{"controller-manager", "scheduler", "kubelet"} {
		h.cluster("pause", component, "--dir", h.directory)
		h.cluster("resume", component, "--dir", h.directory)
		h.cluster("restart", component, "--dir", h.directory)
	}
	// The kubelet's processes ended with it; it has started them again under their old addresses.
	h.until("second", func() string { return fetch("http://" + address + ":8000/page.txt") })
	h.until("2", func() string { return h.get("{.status.readyReplicas}", "deployment/web") })
	if err := syscall.Kill(h.status().Components["scheduler"].Pid, syscall.SIGKILL); err != nil {
		h.Fatal(err)
	}
	h.until("crashed", func() string { return h.status().Components["scheduler"].State })
	h.cluster("start", "scheduler", "--dir", h.directory)
}

const whoami = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller}
---
apiVersion: batch/v1
kind: Job
metadata: {name: whoami}
spec:
  template:
    spec:
      serviceAccountName: caller
      restartPolicy: Never
      containers:
      - {name: ask, image: kubectl, args: [kubectl, auth, whoami, -o, "jsonpath={.status.userInfo.username}"]}
`

func serviceAccounts(h harness) {
	const user = "system:serviceaccount:default:caller"
	h.apply(whoami)
	h.until("1", func() string { return h.get("{.status.succeeded}", "job/whoami") })
	if got := h.kubectl("logs", "job/whoami"); got != user {
		h.Errorf("a pod's credentials are those of %q", got)
	}
	config := filepath.Join(h.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, []byte(h.cluster("kubeconfig", "--dir", h.directory, "--serviceaccount", "default/caller")), 0o600); err != nil {
		h.Fatal(err)
	}
	if got := h.kubectl("--kubeconfig", config, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); got != user {
		h.Errorf("the kubeconfig's credentials are those of %q", got)
	}
	if output, err := exec.Command(h.binary, "kubectl", "--kubeconfig", config, "get", "nodes").CombinedOutput(); err == nil {
		h.Errorf("a service account without rights reads nodes: %s", output)
	}
	if token := h.cluster("token", "--dir", h.directory, "--serviceaccount", "caller", "--audience", "x"); strings.Count(token, ".") != 2 {
		h.Errorf("the token is %q", token)
	}
}

const layered = `
apiVersion: v1
kind: Pod
metadata: {name: layered}
spec:
  terminationGracePeriodSeconds: 30
  volumes: [{name: notes, emptyDir: {}}]
  initContainers:
  - {name: first, image: none, command: [sh, -c, "echo first >> /notes/order"], volumeMounts: [{name: notes, mountPath: /notes}]}
  - name: side
    image: none
    restartPolicy: Always
    command: [sh, -c, "echo side >> /notes/order; trap 'echo side ends; exit 0' TERM; while :; do sleep 0.1; done"]
    volumeMounts: [{name: notes, mountPath: /notes}]
  containers:
  - name: main
    image: none
    command: [sh, -c, "echo main >> /notes/order; cat /notes/order; trap 'tail -n 1 /notes/order; echo main ends; exit 0' TERM; while :; do sleep 0.1; done"]
    volumeMounts: [{name: notes, mountPath: /notes}]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook >> /notes/order"]}}}
`

func lifecycle(h harness) {
	h.apply(layered)
	h.until("Running true", func() string { return h.get("{.status.phase} {.status.containerStatuses[0].ready}", "pod/layered") })
	h.until("first\nside\nmain\n", func() string { return h.kubectl("logs", "layered", "-c", "main") })
	h.kubectl("delete", "pod/layered", "--timeout=20s")
	logs := filepath.Join(h.directory, "logs", "pods")
	for container, want := range map[string]string{"main": "first\nside\nmain\nhook\nmain ends\n", "side": "side ends\n"} {
		text, err := os.ReadFile(filepath.Join(logs, "default_layered_"+container+".log"))
		if err != nil || string(text) != want {
			h.Errorf("%s wrote %q, not %q (%v)", container, text, want, err)
		}
	}
	h.until("[]", func() string {
		left, _ := filepath.Glob(filepath.Join(h.directory, "pods", "default_layered_*"))
		return fmt.Sprint(left)
	})
}

const probed = `
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: flags, emptyDir: {}}]
  containers:
  - name: main
    image: none
    command: [sh, -c, "sleep 1; touch /flags/started; sleep 2; touch /flags/sick-$$; exec sleep 1000"]
    volumeMounts: [{name: flags, mountPath: /flags}]
    startupProbe: {exec: {command: [test, -e, /flags/started]}, periodSeconds: 1, failureThreshold: 30}
    livenessProbe: {exec: {command: [sh, -c, "! ls /flags/sick-* || { rm /flags/sick-*; exit 1; }"]}, periodSeconds: 1, failureThreshold: 1}
`

func probing(h harness) {
	h.apply(probed)
	h.until("LivenessProbeFailed", func() string {
		return h.get("{.status.containerStatuses[0].lastState.terminated.reason}", "pod/probed")
	})
	h.until("true", func() string { return h.get("{.status.containerStatuses[0].ready}", "pod/probed") })
	h.kubectl("delete", "pod/probed", "--timeout=20s")
}

const toZero = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 0
  maxReplicas: 2
  behavior: {scaleUp: {tolerance: 0.05}}
  metrics: [{type: External, external: {metric: {name: wanted}, target: {type: AverageValue, averageValue: 1}}}]
`

func scaleToZero(h harness) {
	h.apply(toZero)
	h.until("FailedGetExternalMetric", func() string { return h.get(`{.status.conditions[?(@.type=="ScalingActive")].reason}`, "hpa/web") })
	if account := h.get("{.metadata.name}", "--namespace=kube-system", "serviceaccount/horizontal-pod-autoscaler"); account == "" {
		h.Error("the HPA controller has no service account of its own")
	}
	h.kubectl("delete", "hpa/web")
}

func thirdPartyCRDs(h harness) {
	for _, name := range []string{"servicemonitors.monitoring.coreos.com", "httproutes.gateway.networking.k8s.io", "scaledobjects.keda.sh"} {
		h.kubectl("get", "crd", name)
	}
}

func nothingRemains(h harness) {
	description := h.status()
	_, pid := h.aPod()
	h.cluster("down", "--dir", h.directory, "--delete")
	for _, component := range description.Components {
		if err := syscall.Kill(component.Pid, 0); err == nil {
			h.Errorf("process %d remains", component.Pid)
		}
	}
	if err := exec.Command("kill", "-0", pid).Run(); err == nil {
		h.Errorf("the pod's process %s remains", pid)
	}
	if _, err := os.Stat(h.directory); !os.IsNotExist(err) {
		h.Errorf("the directory remains: %v", err)
	}
}
