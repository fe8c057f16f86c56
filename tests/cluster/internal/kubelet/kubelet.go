// Package kubelet runs pods as processes of this machine.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"headroom.dev/tests/cluster/internal/component"
	"headroom.dev/tests/cluster/internal/layout"
)

// marker is a variable in the environment of every process of a pod; its value is the state directory.
const marker = "TEST_CLUSTER_DIRECTORY"

// version that nodes report, that of the control plane.
const version = component.Version

// Options of the process kubelet.
type Options struct {
	Directory layout.Directory
	// Port of the HTTPS server for health and logs.
	Port       int
	PodRange   netip.Prefix
	Nodes      []NodeSpec
	Images     Images
	SyncPeriod time.Duration
	// Log takes a line for each thing that went wrong.
	Log io.Writer
}

// Kubelet serves all nodes of the cluster.
type Kubelet struct {
	client     kubernetes.Interface
	server     string
	directory  layout.Directory
	port       int
	images     Images
	addresses  *addresses
	objects    objects
	nodes      corelisters.NodeLister
	specs      []NodeSpec
	syncPeriod time.Duration
	out        io.Writer
	registered atomic.Bool
	wake       chan struct{}

	mu   sync.Mutex
	pods map[types.UID]*pod
}

// New makes a kubelet that talks to the API server of the config.
func New(config *rest.Config, options Options) (*Kubelet, error) {
	// As the pods are on one machine with it, no rate limit is needed to spare the API server.
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Kubelet{
		client: client, server: config.Host, directory: options.Directory, port: options.Port, images: options.Images,
		addresses: newAddresses(options.PodRange), specs: options.Nodes, syncPeriod: options.SyncPeriod, out: options.Log,
		wake: make(chan struct{}, 1), pods: map[types.UID]*pod{},
	}, nil
}

// Run serves until the context ends; then all processes of pods are killed, as they would be with the machine.
func (k *Kubelet) Run(ctx context.Context) error {
	sweep(k.directory)
	stopServer, err := k.serve()
	if err != nil {
		return err
	}
	defer stopServer()
	factory := informers.NewSharedInformerFactory(k.client, 0)
	nodes := factory.Core().V1().Nodes()
	k.nodes = nodes.Lister()
	k.objects = cached{factory.Core().V1().ConfigMaps().Lister(), factory.Core().V1().Secrets().Lister()}
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { k.beatSoon() }}); err != nil {
		return err
	}
	bound := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithTweakListOptions(func(list *metav1.ListOptions) {
		list.FieldSelector = "spec.nodeName!="
	}))
	pods := bound.Core().V1().Pods().Informer()
	factory.Start(ctx.Done())
	if err := synced(ctx, factory); err != nil {
		return err
	}
	go k.keepNodes(ctx)
	handler, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { k.observe(object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { k.observe(object.(*v1.Pod)) },
		DeleteFunc: k.forget,
	})
	if err != nil {
		return err
	}
	bound.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return errors.New("stopped before the pods were read")
	}
	k.clean()
	<-ctx.Done()
	sweep(k.directory)
	return nil
}

func synced(ctx context.Context, factory informers.SharedInformerFactory) error {
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("stopped before %s were read", kind)
		}
	}
	return nil
}

// keepNodes registers the nodes and keeps them ready.
func (k *Kubelet) keepNodes(ctx context.Context) {
	waiting := append([]NodeSpec{}, k.specs...)
	for ctx.Err() == nil {
		pause := heartbeat
		var left []NodeSpec
		for _, spec := range waiting {
			if err := k.register(ctx, spec); err != nil {
				k.log("node %s: %v", spec.Name, err)
				left = append(left, spec)
			}
		}
		waiting = left
		if err := k.beatAll(ctx); err != nil || len(waiting) > 0 {
			pause = time.Second
		} else {
			k.registered.Store(true)
		}
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-time.After(pause):
		}
	}
}

func (k *Kubelet) beatAll(ctx context.Context) error {
	list, err := k.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var failed []error
	for i := range list.Items {
		if node := &list.Items[i]; served(node) {
			if err := k.beat(ctx, node); err != nil && !apierrors.IsNotFound(err) {
				k.log("node %s: %v", node.Name, err)
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

func (k *Kubelet) beatSoon() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// observe starts a pod or tells a started one what has changed.
func (k *Kubelet) observe(spec *v1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if known, ok := k.pods[spec.UID]; ok {
		known.update(spec)
		return
	}
	if !k.ours(spec) {
		return
	}
	started := newPod(k, spec)
	k.pods[spec.UID] = started
	go started.run()
}

// ours says whether the pod is on a node that we serve; a node too new for the cache is asked for.
func (k *Kubelet) ours(spec *v1.Pod) bool {
	node, err := k.nodes.Get(spec.Spec.NodeName)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
		defer cancel()
		node, err = k.client.CoreV1().Nodes().Get(ctx, spec.Spec.NodeName, metav1.GetOptions{})
	}
	return err == nil && served(node)
}

// forget ends a pod that the API has no more.
func (k *Kubelet) forget(object any) {
	if stale, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = stale.Obj
	}
	spec, ok := object.(*v1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	known := k.pods[spec.UID]
	k.mu.Unlock()
	if known != nil {
		known.removed()
	}
}

// remove is called by a pod that has ended.
func (k *Kubelet) remove(ended *pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, ended.uid)
}

// clean removes directories of pods that went while no kubelet ran.
func (k *Kubelet) clean() {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := map[string]bool{}
	for _, pod := range k.pods {
		known[filepath.Base(pod.directory)] = true
	}
	entries, _ := os.ReadDir(k.directory.Pods())
	for _, entry := range entries {
		if !known[entry.Name()] {
			_ = os.RemoveAll(filepath.Join(k.directory.Pods(), entry.Name()))
		}
	}
}

// logPath of a container: one file over all its runs, kept when the pod is gone.
func (k *Kubelet) logPath(namespace, pod, container string) string {
	return filepath.Join(k.directory.PodLogs(), namespace+"_"+pod+"_"+container+".log")
}

func (k *Kubelet) log(format string, args ...any) {
	fmt.Fprintf(k.out, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}

// baseEnvironment of every container, before what its spec says. The API server is at localhost: in a pod, 127.0.0.1 is the pod.
func (k *Kubelet) baseEnvironment(pod *v1.Pod, directory string) map[string]string {
	port := ""
	if server, err := url.Parse(k.server); err == nil {
		port = server.Port()
	}
	return map[string]string{
		"PATH":                          os.Getenv("PATH"),
		"HOME":                          directory,
		"HOSTNAME":                      pod.Name,
		"KUBERNETES_SERVICE_HOST":       "localhost",
		"KUBERNETES_SERVICE_PORT":       port,
		"KUBERNETES_SERVICE_PORT_HTTPS": port,
		marker:                          string(k.directory),
	}
}

// cached reads ConfigMaps and Secrets from the watch.
type cached struct {
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
}

func (c cached) ConfigMap(namespace, name string) (*v1.ConfigMap, error) {
	return c.configMaps.ConfigMaps(namespace).Get(name)
}

func (c cached) Secret(namespace, name string) (*v1.Secret, error) {
	return c.secrets.Secrets(namespace).Get(name)
}

// sweep kills every process of the directory's pods, also those that left their process group.
func sweep(directory layout.Directory) {
	wanted := marker + "=" + string(directory)
	for round := 0; round < 3; round++ {
		found := false
		entries, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, entry := range entries {
			text, err := os.ReadFile(entry)
			if err != nil || !containsVariable(string(text), wanted) {
				continue
			}
			found = true
			kill(filepath.Base(filepath.Dir(entry)))
		}
		if !found {
			return
		}
	}
}

func containsVariable(environ, wanted string) bool {
	for _, variable := range strings.Split(environ, "\x00") {
		if variable == wanted {
			return true
		}
	}
	return false
}
