package kubelet

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// stored is what ConfigMaps and Secrets hold, by name.
type stored map[string]map[string]string

func (s stored) ConfigMap(_, name string) (*v1.ConfigMap, error) {
	data, ok := s[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &v1.ConfigMap{Data: data}, nil
}

func (s stored) Secret(_, name string) (*v1.Secret, error) {
	data, ok := s[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	secret := &v1.Secret{Data: map[string][]byte{}}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	return secret, nil
}

var aPod = &v1.Pod{
	ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop", UID: "u-1", Labels: map[string]string{"role": "decode"}},
	Spec:       v1.PodSpec{NodeName: "h100-0", ServiceAccountName: "buyer"},
}

func field(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnvironment(t *testing.T) {
	yes := true
	container := &v1.Container{
		Name: "web",
		Resources: v1.ResourceRequirements{Limits: v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("1500m"), v1.ResourceMemory: resource.MustParse("2Gi"),
		}},
		EnvFrom: []v1.EnvFromSource{
			{Prefix: "CM_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}},
			{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "absent"}, Optional: &yes}},
		},
		Env: []v1.EnvVar{
			{Name: "POD_IP", ValueFrom: field("status.podIP")},
			{Name: "NAME", ValueFrom: field("metadata.name")},
			{Name: "ROLE", ValueFrom: field("metadata.labels['role']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "URL", Value: "http://$(POD_IP):$(PORT)/$(LATER)/$$(NAME)"},
			{Name: "LATER", Value: "x"},
			{Name: "CPU", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "KEY", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "a"}}},
			{Name: "NONE", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
				LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "b", Optional: &yes}}},
		},
	}
	got, err := environment(aPod, container, "127.9.0.2", map[string]string{"PORT": "8000"}, stored{"settings": {"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CM_a=1", "CPU=2", "KEY=1", "LATER=x", "NAME=web-0", "NODE=h100-0", "POD_IP=127.9.0.2", "PORT=8000", "ROLE=decode",
		"URL=http://127.9.0.2:8000/$(LATER)/$(NAME)"}
	if !slices.Equal(list(got), want) {
		t.Errorf("got  %q\nwant %q", list(got), want)
	}
	if args := expand([]string{"--url=$(URL)", "$(UNKNOWN)"}, got); args[0] != "--url="+got["URL"] || args[1] != "$(UNKNOWN)" {
		t.Errorf("args became %q", args)
	}
}

func TestAbsentSourcesAreNamed(t *testing.T) {
	for want, source := range map[string]*v1.EnvVarSource{
		`configmaps "gone" not found`:     {ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "gone"}, Key: "a"}},
		`Secret settings has no key "zz"`: {SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "zz"}},
		`valueFrom is none of`:            {},
	} {
		container := &v1.Container{Env: []v1.EnvVar{{Name: "X", ValueFrom: source}}}
		_, err := environment(aPod, container, "", nil, stored{"settings": {}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "env X") {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
