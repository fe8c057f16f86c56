package kubelet

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestArgv(t *testing.T) {
	images := Images{"headroom": "/build/headroom", "vllm-openai": "/build/fake.sh"}
	for _, given := range []struct {
		image         string
		command, args []string
		want          []string
	}{
		{"headroom", nil, []string{"epp"}, []string{"/build/headroom", "epp"}},
		{"registry:5000/team/headroom:v1@sha256:abc", nil, nil, []string{"/build/headroom"}},
		{"headroom:dev", []string{"/usr/bin/headroom", "epp"}, []string{"-v"}, []string{"/build/headroom", "epp", "-v"}},
		{"vllm/vllm-openai:latest", []string{"sh", "-c", "true"}, nil, []string{"sh", "-c", "true"}},
		{"busybox", []string{"sleep"}, []string{"1"}, []string{"sleep", "1"}},
		{"busybox", nil, []string{"1"}, nil},
	} {
		got, err := images.argv(given.image, given.command, given.args)
		if !slices.Equal(got, given.want) || (err != nil) != (given.want == nil) {
			t.Errorf("%s %q %q: %q, %v", given.image, given.command, given.args, got, err)
		}
	}
}

func TestRestartPolicies(t *testing.T) {
	for policy, want := range map[v1.RestartPolicy][2]bool{
		v1.RestartPolicyAlways: {true, true}, v1.RestartPolicyOnFailure: {false, true}, v1.RestartPolicyNever: {false, false},
	} {
		if got := [2]bool{policyRestarts(policy, 0), policyRestarts(policy, 1)}; got != want {
			t.Errorf("%s: %v", policy, got)
		}
	}
}
