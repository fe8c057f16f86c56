package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseNode(t *testing.T) {
	node, err := ParseNode("h100-0,product=H100,gpu=8,cpu=500m,label=zone=a=b,pods=3")
	if err != nil {
		t.Fatal(err)
	}
	resources := node.resources()
	gpu, cpu, pods, memory := resources[gpuResource], resources["cpu"], resources["pods"], resources["memory"]
	if node.Name != "h100-0" || node.Labels[productLabel] != "H100" || node.Labels["zone"] != "a=b" {
		t.Errorf("%+v", node)
	}
	if gpu.String() != "8" || cpu.String() != "500m" || pods.String() != "3" || memory.IsZero() {
		t.Errorf("%v", resources)
	}
	for given, want := range map[string]string{
		"": "no name", "n,gpu=many": `gpu="many" is not a quantity`, "n,label=x": "not label=KEY=VALUE", "n,colour=red": `"colour" is none of`,
	} {
		if _, err := ParseNode(given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v does not say %s", given, err, want)
		}
	}
}

func TestReadNodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("- name: a\n  labels: {x: y}\n  allocatable: {nvidia.com/gpu: 4}\n  taints: [{key: k, effect: NoSchedule}]\n")
	nodes, err := ReadNodes(path)
	if err != nil || len(nodes) != 1 || len(nodes[0].Taints) != 1 {
		t.Fatalf("%v %v", nodes, err)
	}
	if gpu := nodes[0].resources()[gpuResource]; gpu.String() != "4" {
		t.Errorf("gpu is %s", gpu.String())
	}
	for given, want := range map[string]string{"- labels: {}\n": "entry 1 has no name", "- name: a\n  allocateable: {}\n": "allocateable"} {
		write(given)
		if _, err := ReadNodes(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v does not say %s", given, err, want)
		}
	}
}
