package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Labels and resources that accelerators are known by.
const (
	productLabel   = "nvidia.com/gpu.product"
	gpuResource    = "nvidia.com/gpu"
	hostnameLabel  = "kubernetes.io/hostname"
	fakeAnnotation = "kwok.x-k8s.io/node"
)

// heartbeat between renewals of a node's lease and status; the controller manager waits 50 s.
const heartbeat = 10 * time.Second

// leaseSeconds as kubelets set them.
const leaseSeconds = 40

// NodeSpec is a node to register.
type NodeSpec struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Taints      []v1.Taint        `json:"taints,omitempty"`
	Allocatable v1.ResourceList   `json:"allocatable,omitempty"`
}

// ParseNode reads NAME[,product=H100][,gpu=8][,cpu=64][,memory=512Gi][,pods=110][,label=KEY=VALUE]...
func ParseNode(text string) (NodeSpec, error) {
	parts := strings.Split(text, ",")
	node := NodeSpec{Name: parts[0], Labels: map[string]string{}, Allocatable: v1.ResourceList{}}
	if node.Name == "" {
		return node, fmt.Errorf("--node %q has no name; right would be h100-0,product=H100,gpu=8", text)
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "product":
			node.Labels[productLabel] = value
		case "label":
			name, content, found := strings.Cut(value, "=")
			if !found {
				return node, fmt.Errorf("--node %q: %q is not label=KEY=VALUE", text, part)
			}
			node.Labels[name] = content
		case "gpu", "cpu", "memory", "pods":
			quantity, err := resource.ParseQuantity(value)
			if err != nil {
				return node, fmt.Errorf("--node %q: %s=%q is not a quantity such as 8 or 64Gi", text, key, value)
			}
			name := v1.ResourceName(key)
			if key == "gpu" {
				name = gpuResource
			}
			node.Allocatable[name] = quantity
		default:
			return node, fmt.Errorf("--node %q: %q is none of product, gpu, cpu, memory, pods, label", text, key)
		}
	}
	return node, nil
}

// ReadNodes reads a YAML list of node specs.
func ReadNodes(path string) ([]NodeSpec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var nodes []NodeSpec
	if err := yaml.UnmarshalStrict(text, &nodes); err != nil {
		return nil, fmt.Errorf("--nodes %s: %w", path, err)
	}
	for i, node := range nodes {
		if node.Name == "" {
			return nil, fmt.Errorf("--nodes %s: entry %d has no name", path, i+1)
		}
	}
	return nodes, nil
}

// resources of the node, with what was not said taken to be plenty.
func (n NodeSpec) resources() v1.ResourceList {
	resources := v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("64"),
		v1.ResourceMemory:           resource.MustParse("512Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		v1.ResourcePods:             resource.MustParse("110"),
	}
	for name, quantity := range n.Allocatable {
		resources[name] = quantity
	}
	return resources
}

// register makes the node, or gives an existing one the labels and resources of the spec.
func (k *Kubelet) register(ctx context.Context, spec NodeSpec) error {
	labels := map[string]string{hostnameLabel: spec.Name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
	for key, value := range spec.Labels {
		labels[key] = value
	}
	resources := spec.resources()
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels, Annotations: spec.Annotations},
		Spec:       v1.NodeSpec{Taints: spec.Taints},
		Status:     v1.NodeStatus{Capacity: resources, Allocatable: resources},
	}
	_, err := k.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	metadata := map[string]any{"metadata": map[string]any{"labels": labels, "annotations": spec.Annotations}}
	if err := k.patchNode(ctx, spec.Name, metadata); err != nil {
		return err
	}
	return k.patchNode(ctx, spec.Name, map[string]any{"status": map[string]any{"capacity": resources, "allocatable": resources}}, "status")
}

func (k *Kubelet) patchNode(ctx context.Context, name string, patch map[string]any, subresources ...string) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, subresources...)
	return err
}

// beat reports one node as ready and renews its lease.
func (k *Kubelet) beat(ctx context.Context, node *v1.Node) error {
	if err := k.patchNode(ctx, node.Name, map[string]any{"status": nodeStatus(node, k.port, now())}, "status"); err != nil {
		return err
	}
	leases := k.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	renewed, duration := metav1.NowMicro(), int32(leaseSeconds)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: &duration, RenewTime: &renewed}
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, node.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{owner}}, Spec: spec}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	}
	return err
}

// nodeStatus is what the kubelet says of a node; resources are left as they are, so that a test can change them.
func nodeStatus(node *v1.Node, port int, now metav1.Time) v1.NodeStatus {
	status := v1.NodeStatus{
		Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: hostIP}, {Type: v1.NodeHostName, Address: node.Name}},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(port)}},
		NodeInfo: v1.NodeSystemInfo{
			KubeletVersion: version, OperatingSystem: "linux", Architecture: "amd64", OSImage: "processes of this machine",
			ContainerRuntimeVersion: "process://1",
		},
	}
	for kind, reason := range map[v1.NodeConditionType]string{
		v1.NodeReady: "KubeletReady", v1.NodeMemoryPressure: "Plenty", v1.NodeDiskPressure: "Plenty", v1.NodePIDPressure: "Plenty",
	} {
		condition := v1.NodeCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
		if kind == v1.NodeReady {
			condition.Status = v1.ConditionTrue
		}
		for _, previous := range node.Status.Conditions {
			if previous.Type == kind && previous.Status == condition.Status {
				condition.LastTransitionTime = previous.LastTransitionTime
			}
		}
		status.Conditions = append(status.Conditions, condition)
	}
	return status
}

// served says whether the node is ours: all are, but those that another program fakes.
func served(node *v1.Node) bool {
	_, fake := node.Annotations[fakeAnnotation]
	return !fake
}
