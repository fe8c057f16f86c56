// Package layout names what lies where in a cluster's state directory.
package layout

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// The components, in the order in which they start.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
	Kubelet           = "kubelet"
)

// Components in the order in which they start; they stop in the opposite order.
var Components = []string{Etcd, APIServer, ControllerManager, Scheduler, Kubelet}

// Directory is a cluster's state directory as an absolute path.
type Directory string

// Open makes path absolute; the directory itself need not exist.
func Open(path string) (Directory, error) {
	absolute, err := filepath.Abs(path)
	return Directory(absolute), err
}

// Path joins elements to the directory.
func (d Directory) Path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// Kubeconfig is the administrator's kubeconfig.
func (d Directory) Kubeconfig() string { return d.Path("kubeconfig") }

// ComponentKubeconfig is the kubeconfig that a component uses.
func (d Directory) ComponentKubeconfig(component string) string {
	return d.Path("pki", component+".kubeconfig")
}

// PKI holds certificates and keys.
func (d Directory) PKI(file string) string { return d.Path("pki", file) }

// Log is what a component wrote to standard error and standard output.
func (d Directory) Log(component string) string { return d.Path("logs", component+".log") }

// PodLogs holds one file per container, kept when the pod is gone.
func (d Directory) PodLogs() string { return d.Path("logs", "pods") }

// Pods holds one directory per pod for as long as it exists.
func (d Directory) Pods() string { return d.Path("pods") }

// Description is the path of cluster.json.
func (d Directory) Description() string { return d.Path("cluster.json") }

// ComponentState says how one component's process is.
type ComponentState struct {
	// Pid of the process, 0 where there is none.
	Pid int `json:"pid"`
	// Port it serves on, on 127.0.0.1.
	Port int `json:"port"`
	// State is running, paused, stopped or crashed.
	State string `json:"state"`
	// Exit says how a crashed process ended.
	Exit string `json:"exit,omitempty"`
	// Log is the file with its output.
	Log string `json:"log"`
}

// Description is what cluster.json holds.
type Description struct {
	Directory    string                    `json:"directory"`
	Kubeconfig   string                    `json:"kubeconfig"`
	URL          string                    `json:"url"`
	CA           string                    `json:"ca"`
	FrontProxyCA string                    `json:"frontProxyCa"`
	PodRange     string                    `json:"podRange"`
	DNS          string                    `json:"dns"`
	Version      string                    `json:"version"`
	Supervisor   int                       `json:"supervisor"`
	Ready        bool                      `json:"ready"`
	StartSeconds float64                   `json:"startSeconds"`
	Components   map[string]ComponentState `json:"components"`
}

// ReadDescription reads cluster.json.
func (d Directory) ReadDescription() (Description, error) {
	var description Description
	text, err := os.ReadFile(d.Description())
	if err != nil {
		return description, fmt.Errorf("no cluster in %s (cluster up --dir %s makes one): %w", d, d, err)
	}
	if err := json.Unmarshal(text, &description); err != nil {
		return description, fmt.Errorf("%s: %w", d.Description(), err)
	}
	return description, nil
}

// WriteDescription replaces cluster.json whole, so that a reader never meets half of it.
func (d Directory) WriteDescription(description Description) error {
	text, err := json.Marshal(description)
	if err != nil {
		return err
	}
	return Replace(d.Description(), append(text, '\n'), 0o644)
}

// Replace writes a file beside path and renames it.
func Replace(path string, content []byte, mode os.FileMode) error {
	part := path + ".part"
	if err := os.WriteFile(part, content, mode); err != nil {
		return err
	}
	return os.Rename(part, path)
}
