// Package component knows how each part of the control plane is started and when it answers.
package component

import (
	"fmt"
	"net/url"
	"os"
	"sort"
	"strconv"

	clientcmd "k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"headroom.dev/tests/cluster/internal/layout"
	"headroom.dev/tests/cluster/internal/pki"
)

// Version of Kubernetes that is built in; the build sets it in Kubernetes' own packages too.
const Version = "v1.36.3"

// controllerQPS is the request rate of controllers: with the usual 20 a second, making their service accounts takes 4 s of the start.
const controllerQPS = "500"

// Config is what the arguments of the components depend on.
type Config struct {
	Directory layout.Directory
	// Ports by component; EtcdPeer is etcd's second one.
	Ports    map[string]int
	EtcdPeer int
	// PodRange is the CIDR of the process kubelet's pods.
	PodRange string
	// HPASyncPeriod and HPADownscaleStabilization as the controller manager takes them.
	HPASyncPeriod             string
	HPADownscaleStabilization string
	// Loopback says that pods have loopback addresses, which the API refuses in EndpointSlices.
	Loopback bool
	// Nodes is a file with node specs, Images are NAME=BINARY; both for the kubelet.
	Nodes  string
	Images []string
	// Extra arguments by component.
	Extra map[string][]string
}

// URL of the API server.
func (c Config) URL() string {
	address := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", c.Ports[layout.APIServer])}
	return address.String()
}

// Args are a component's arguments, without its subcommand.
func (c Config) Args(component string) []string {
	args := map[string]func() []string{
		layout.Etcd:              c.etcd,
		layout.APIServer:         c.apiServer,
		layout.ControllerManager: c.controllerManager,
		layout.Scheduler:         c.scheduler,
		layout.Kubelet:           c.kubelet,
	}[component]()
	return append(args, c.Extra[component]...)
}

func (c Config) etcd() []string {
	return flags(map[string]string{
		"data":   c.Directory.Path("etcd"),
		"client": fmt.Sprintf("http://127.0.0.1:%d", c.Ports[layout.Etcd]),
		"peer":   fmt.Sprintf("http://127.0.0.1:%d", c.EtcdPeer),
	})
}

func (c Config) apiServer() []string {
	file := c.Directory.PKI
	return flags(map[string]string{
		"etcd-servers":  fmt.Sprintf("http://127.0.0.1:%d", c.Ports[layout.Etcd]),
		"bind-address":  "127.0.0.1",
		"secure-port":   strconv.Itoa(c.Ports[layout.APIServer]),
		"feature-gates": "HPAScaleToZero=true",
		// Advertised to nobody: the reconciler that would publish it is off, but the flag must not be a loopback address.
		"advertise-address":        "192.0.2.1",
		"endpoint-reconciler-type": "none",
		"service-cluster-ip-range": "10.0.0.0/16",
		"authorization-mode":       "RBAC",
		"allow-privileged":         "true",
		"profiling":                "false",

		"tls-cert-file":        file("apiserver.crt"),
		"tls-private-key-file": file("apiserver.key"),
		"client-ca-file":       file("ca.crt"),

		"service-account-issuer":           "https://kubernetes.default.svc.cluster.local",
		"service-account-key-file":         file("service-account.pub"),
		"service-account-signing-key-file": file("service-account.key"),

		"requestheader-client-ca-file":       file("front-proxy-ca.crt"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             file("front-proxy-client.crt"),
		"proxy-client-key-file":              file("front-proxy-client.key"),

		"kubelet-certificate-authority":   file("ca.crt"),
		"kubelet-client-certificate":      file("apiserver-kubelet-client.crt"),
		"kubelet-client-key":              file("apiserver-kubelet-client.key"),
		"kubelet-preferred-address-types": "InternalIP",
	})
}

func (c Config) controllerManager() []string {
	kubeconfig := c.Directory.ComponentKubeconfig(layout.ControllerManager)
	controllers := "*"
	if c.Loopback {
		controllers += ",-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"
	}
	return flags(map[string]string{
		"kubeconfig":                            kubeconfig,
		"authentication-kubeconfig":             kubeconfig,
		"authorization-kubeconfig":              kubeconfig,
		"bind-address":                          "127.0.0.1",
		"secure-port":                           strconv.Itoa(c.Ports[layout.ControllerManager]),
		"feature-gates":                         "HPAScaleToZero=true",
		"leader-elect":                          "false",
		"controllers":                           controllers,
		"use-service-account-credentials":       "true",
		"service-account-private-key-file":      c.Directory.PKI("service-account.key"),
		"root-ca-file":                          c.Directory.PKI("ca.crt"),
		"cluster-signing-cert-file":             c.Directory.PKI("ca.crt"),
		"cluster-signing-key-file":              c.Directory.PKI("ca.key"),
		"horizontal-pod-autoscaler-sync-period": c.HPASyncPeriod,
		"horizontal-pod-autoscaler-downscale-stabilization": c.HPADownscaleStabilization,
	})
}

func (c Config) scheduler() []string {
	kubeconfig := c.Directory.ComponentKubeconfig(layout.Scheduler)
	return flags(map[string]string{
		"kubeconfig":                kubeconfig,
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"secure-port":               strconv.Itoa(c.Ports[layout.Scheduler]),
		"leader-elect":              "false",
		"kube-api-qps":              controllerQPS,
		"kube-api-burst":            controllerQPS,
	})
}

func (c Config) kubelet() []string {
	args := flags(map[string]string{
		"dir":       string(c.Directory),
		"port":      strconv.Itoa(c.Ports[layout.Kubelet]),
		"pod-range": c.PodRange,
	})
	if c.Nodes != "" {
		args = append(args, "--nodes="+c.Nodes)
	}
	for _, image := range c.Images {
		args = append(args, "--image="+image)
	}
	return args
}

// EnsureIdentities makes the certificates that are absent, the administrator's kubeconfig and those of the components.
func (c Config) EnsureIdentities() error {
	if err := pki.Ensure(c.Directory.Path("pki")); err != nil {
		return err
	}
	files := map[string]string{
		c.Directory.Kubeconfig():                                  "admin",
		c.Directory.ComponentKubeconfig(layout.ControllerManager): "controller-manager",
		c.Directory.ComponentKubeconfig(layout.Scheduler):         "scheduler",
		c.Directory.ComponentKubeconfig(layout.Kubelet):           "kubelet",
	}
	for path, user := range files {
		if err := c.writeKubeconfig(path, user); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) writeKubeconfig(path, user string) error {
	content := make([][]byte, 3)
	for i, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		var err error
		if content[i], err = os.ReadFile(c.Directory.PKI(file)); err != nil {
			return err
		}
	}
	config := Kubeconfig(c.URL(), content[0], user, &clientcmdapi.AuthInfo{ClientCertificateData: content[1], ClientKeyData: content[2]})
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return layout.Replace(path, text, 0o600)
}

// Kubeconfig with one cluster, one user and one context.
func Kubeconfig(server string, ca []byte, user string, credentials *clientcmdapi.AuthInfo) *clientcmdapi.Config {
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[user] = credentials
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	return config
}

// flags in alphabetical order, so that a command line is the same each time.
func flags(values map[string]string) []string {
	args := make([]string, 0, len(values))
	for name, value := range values {
		args = append(args, "--"+name+"="+value)
	}
	sort.Strings(args)
	return args
}
