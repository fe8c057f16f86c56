package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"
)

// object is what the tests read of a Kubernetes manifest.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Template struct{ Spec podSpec }
	}
}

type podSpec struct {
	SecurityContext struct {
		RunAsNonRoot          bool
		RunAsUser, RunAsGroup uint32
	}
	Containers []struct {
		SecurityContext struct{ ReadOnlyRootFilesystem bool }
		Args            []string
		Env             []struct {
			Name      string
			ValueFrom struct{ FieldRef struct{ FieldPath string } }
		}
		VolumeMounts []struct{ Name, MountPath string }
	}
	Volumes []volume
}

type volume struct {
	Name      string
	EmptyDir  *struct{}
	ConfigMap *struct{ Name string }
	Secret    *struct {
		SecretName string
		Items      []struct{ Key, Path string }
	}
	Projected *struct {
		Sources []struct {
			ServiceAccountToken struct{ Path string }
		}
	}
}

// rendered is what the chart makes of its own full example.
func rendered(t *testing.T) []object {
	t.Helper()
	helm := exec.Command(os.Getenv("HEADROOM_HELM"), "template", "headroom", "../charts/headroom", "--namespace", "headroom",
		"--kube-version", "1.36.0", "--values", "../charts/headroom/ci/full.yaml")
	helm.Stderr = os.Stderr
	text, err := helm.Output()
	if err != nil {
		t.Fatalf("helm template: %v", err)
	}
	var objects []object
	for _, document := range strings.Split(string(text), "\n---\n") {
		var one object
		if err := yaml.Unmarshal([]byte(document), &one); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		objects = append(objects, one)
	}
	return objects
}

func find(t *testing.T, objects []object, kind, namespace, name string) object {
	t.Helper()
	for _, one := range objects {
		if one.Kind == kind && one.Metadata.Name == name && one.Metadata.Namespace == namespace {
			return one
		}
	}
	t.Fatalf("the chart renders no %s %s/%s", kind, namespace, name)
	return object{}
}

// pod is a Deployment's container as a kubelet and a container runtime would start it, on a copy of the image's files.
type pod struct {
	root     string
	uid, gid uint32
	args     []string
	env      []string
}

const podIP = "127.0.0.1"

// start lays out the image for the pods of a Deployment: its volumes, its service account, a read-only root.
func podOf(t *testing.T, objects []object, namespace, deployment string, server apiServer) pod {
	t.Helper()
	spec := find(t, objects, "Deployment", namespace, deployment).Spec.Template.Spec
	container := spec.Containers[0]
	if !spec.SecurityContext.RunAsNonRoot || spec.SecurityContext.RunAsUser == 0 || !container.SecurityContext.ReadOnlyRootFilesystem {
		t.Errorf("%s does not ask for a user that is not root and a read-only root", deployment)
	}
	one := pod{root: imageRoot(t), uid: spec.SecurityContext.RunAsUser, gid: spec.SecurityContext.RunAsGroup, args: container.Args}
	fields := map[string]string{"metadata.name": deployment + "-0", "metadata.namespace": namespace, "status.podIP": podIP}
	for _, variable := range container.Env {
		one.env = append(one.env, variable.Name+"="+fields[variable.ValueFrom.FieldRef.FieldPath])
	}
	one.env = append(one.env, "KUBERNETES_SERVICE_HOST="+apiName, "KUBERNETES_SERVICE_PORT=443")
	account := filepath.Join(one.root, "var/run/secrets/kubernetes.io/serviceaccount")
	files(t, account, map[string]string{"token": token, "namespace": namespace, "ca.crt": server.ca})
	volumes := map[string]volume{}
	for _, one := range spec.Volumes {
		volumes[one.Name] = one
	}
	var writable []string
	for _, mount := range container.VolumeMounts {
		at := filepath.Join(one.root, mount.MountPath)
		switch source := volumes[mount.Name]; {
		case source.EmptyDir != nil:
			files(t, at, nil)
			writable = append(writable, at)
		case source.ConfigMap != nil:
			files(t, at, find(t, objects, "ConfigMap", namespace, source.ConfigMap.Name).Data)
		case source.Secret != nil:
			files(t, at, secret(t, find(t, objects, "Secret", namespace, source.Secret.SecretName), source))
		case source.Projected != nil:
			files(t, at, tokens(t, source))
		default:
			t.Fatalf("volume %q of %s has no source the test knows", mount.Name, deployment)
		}
	}
	seal(t, one.root, writable)
	return one
}

// tokens are the files of a volume that is projected from service account tokens.
func tokens(t *testing.T, source volume) map[string]string {
	t.Helper()
	content := map[string]string{}
	for _, one := range source.Projected.Sources {
		if one.ServiceAccountToken.Path == "" {
			t.Fatalf("volume %q has a source that is no service account token", source.Name)
		}
		content[one.ServiceAccountToken.Path] = token
	}
	return content
}

func secret(t *testing.T, from object, source volume) map[string]string {
	t.Helper()
	content := map[string]string{}
	for key, encoded := range from.Data {
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		content[key] = string(decoded)
	}
	if len(source.Secret.Items) == 0 {
		return content
	}
	chosen := map[string]string{}
	for _, item := range source.Secret.Items {
		chosen[item.Path] = content[item.Key]
	}
	return chosen
}

func files(t *testing.T, directory string, content map[string]string) {
	t.Helper()
	if err := os.MkdirAll(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// seal mounts what every container has and makes the rest read-only but the directories named.
func seal(t *testing.T, root string, writable []string) {
	t.Helper()
	files(t, filepath.Join(root, "etc"), map[string]string{"resolv.conf": "nameserver " + nameServer + "\n", "hosts": "127.0.0.1 localhost\n"})
	mount := func(source, target, kind string, flags uintptr, data string) {
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(target, syscall.MNT_DETACH) })
	}
	for _, name := range []string{"proc", "dev"} {
		files(t, filepath.Join(root, name), nil)
	}
	mount(root, root, "", syscall.MS_BIND, "")
	mount("proc", filepath.Join(root, "proc"), "proc", 0, "")
	mount("/dev", filepath.Join(root, "dev"), "", syscall.MS_BIND, "")
	for _, directory := range writable {
		mount("tmpfs", directory, "tmpfs", 0, "mode=0777")
	}
	if err := syscall.Mount("", root, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("read-only %s: %v", root, err)
	}
}

// command is the image's entrypoint in the pod's root as the pod's user, its output kept.
func (p pod) command(output *log, args ...string) *exec.Cmd {
	run := exec.Command("/headroom", args...)
	run.Dir = "/"
	run.Env = p.env
	run.Stdout, run.Stderr = output, output
	run.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     p.root,
		Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid},
		Pdeathsig:  syscall.SIGKILL,
	}
	return run
}

// start runs the pod's container until the test ends; ended tells how it went before.
func (p pod) start(t *testing.T, args ...string) (output *log, ended <-chan error) {
	t.Helper()
	output = &log{}
	run := p.command(output, args...)
	if err := run.Start(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	done := make(chan error, 1)
	go func() { done <- run.Wait() }()
	t.Cleanup(func() {
		_ = run.Process.Kill()
		if t.Failed() {
			fmt.Fprintf(os.Stderr, "headroom %s:\n%s\n", strings.Join(args, " "), output)
		}
	})
	return output, done
}
