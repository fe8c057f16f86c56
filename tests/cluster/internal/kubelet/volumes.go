package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// tokens issues service account tokens bound to a pod.
type tokens interface {
	Token(ctx context.Context, pod *v1.Pod, request authenticationv1.TokenRequestSpec) (authenticationv1.TokenRequestStatus, error)
}

// volumes of one pod, each a directory under root. Files of ConfigMaps, Secrets and tokens are replaced as the kubelet replaces them:
// whole directories at once, behind the link ..data.
type volumes struct {
	root    string
	objects objects
	tokens  tokens
	// issued tokens by volume and path, and when to renew them.
	issued map[string]issuedToken
}

type issuedToken struct {
	token string
	renew time.Time
}

// payload is the files of one volume by path.
type payload map[string]volumeutil.FileProjection

// textual says of which files the mount paths and addresses are rewritten: configuration, never credentials.
type textual map[string]bool

func newVolumes(root string, objects objects, tokens tokens) *volumes {
	return &volumes{root: root, objects: objects, tokens: tokens, issued: map[string]issuedToken{}}
}

// sync makes or renews every volume of the pod. Views are what containers see, for text that names paths in other volumes.
func (v *volumes) sync(ctx context.Context, pod *v1.Pod, ip string, now time.Time) error {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if err := v.syncOne(ctx, pod, volume, ip, now); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

// path of a volume's files.
func (v *volumes) path(volume *v1.Volume) string {
	if volume.HostPath != nil {
		return volume.HostPath.Path
	}
	return filepath.Join(v.root, volume.Name)
}

func (v *volumes) syncOne(ctx context.Context, pod *v1.Pod, volume *v1.Volume, ip string, now time.Time) error {
	if volume.HostPath != nil {
		return nil
	}
	path := v.path(volume)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if volume.EmptyDir != nil || volume.VolumeSource == (v1.VolumeSource{}) {
		return nil
	}
	files, text, err := v.collect(ctx, pod, volume, ip, now)
	if err != nil {
		return err
	}
	view := podView(pod, v, ip)
	for name := range text {
		if file := files[name]; utf8.Valid(file.Data) {
			file.Data = []byte(view.rewrite(string(file.Data)))
			files[name] = file
		}
	}
	writer, err := volumeutil.NewAtomicWriter(path, "volume "+volume.Name)
	if err != nil {
		return err
	}
	return writer.Write(files, nil)
}

func (v *volumes) collect(ctx context.Context, pod *v1.Pod, volume *v1.Volume, ip string, now time.Time) (payload, textual, error) {
	files, text := payload{}, textual{}
	sources, mode := []v1.VolumeProjection{}, (*int32)(nil)
	switch {
	case volume.ConfigMap != nil:
		mode = volume.ConfigMap.DefaultMode
		sources = append(sources, v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{
			LocalObjectReference: volume.ConfigMap.LocalObjectReference, Items: volume.ConfigMap.Items, Optional: volume.ConfigMap.Optional}})
	case volume.Secret != nil:
		mode = volume.Secret.DefaultMode
		sources = append(sources, v1.VolumeProjection{Secret: &v1.SecretProjection{
			LocalObjectReference: v1.LocalObjectReference{Name: volume.Secret.SecretName}, Items: volume.Secret.Items, Optional: volume.Secret.Optional}})
	case volume.DownwardAPI != nil:
		mode = volume.DownwardAPI.DefaultMode
		sources = append(sources, v1.VolumeProjection{DownwardAPI: &v1.DownwardAPIProjection{Items: volume.DownwardAPI.Items}})
	case volume.Projected != nil:
		mode = volume.Projected.DefaultMode
		sources = volume.Projected.Sources
	default:
		return nil, nil, fmt.Errorf("only configMap, secret, projected, downwardAPI, emptyDir and hostPath can be mounted here")
	}
	permissions := int32(0o644)
	if mode != nil {
		permissions = *mode
	}
	for i := range sources {
		if err := v.project(ctx, pod, volume.Name, &sources[i], ip, permissions, now, files, text); err != nil {
			return nil, nil, err
		}
	}
	return files, text, nil
}

func (v *volumes) project(ctx context.Context, pod *v1.Pod, volume string, source *v1.VolumeProjection, ip string, mode int32, now time.Time, files payload, text textual) error {
	switch {
	case source.ConfigMap != nil:
		found, err := v.objects.ConfigMap(pod.Namespace, source.ConfigMap.Name)
		if err != nil {
			return unlessOptional(err, source.ConfigMap.Optional)
		}
		content := map[string][]byte{}
		for key, value := range found.Data {
			content[key] = []byte(value)
		}
		for key, value := range found.BinaryData {
			content[key] = value
		}
		names, err := choose(content, source.ConfigMap.Items, source.ConfigMap.Optional, mode, files)
		for _, name := range names {
			text[name] = true
		}
		return err
	case source.Secret != nil:
		found, err := v.objects.Secret(pod.Namespace, source.Secret.Name)
		if err != nil {
			return unlessOptional(err, source.Secret.Optional)
		}
		_, err = choose(found.Data, source.Secret.Items, source.Secret.Optional, mode, files)
		return err
	case source.ServiceAccountToken != nil:
		return v.token(ctx, pod, volume, source.ServiceAccountToken, now, files)
	case source.DownwardAPI != nil:
		return downward(pod, source.DownwardAPI.Items, ip, mode, files)
	}
	return fmt.Errorf("only configMap, secret, serviceAccountToken and downwardAPI can be projected here")
}

// choose puts the items, or all of the content where none are named, into files and gives their paths.
func choose(content map[string][]byte, items []v1.KeyToPath, optional *bool, mode int32, files payload) ([]string, error) {
	var names []string
	if len(items) == 0 {
		for key, value := range content {
			files[key] = volumeutil.FileProjection{Data: value, Mode: mode}
			names = append(names, key)
		}
		return names, nil
	}
	for _, item := range items {
		value, present := content[item.Key]
		if !present {
			if err := missingKey("object", "mounted", item.Key, optional); err != nil {
				return nil, err
			}
			continue
		}
		permissions := mode
		if item.Mode != nil {
			permissions = *item.Mode
		}
		files[item.Path] = volumeutil.FileProjection{Data: value, Mode: permissions}
		names = append(names, item.Path)
	}
	return names, nil
}

func (v *volumes) token(ctx context.Context, pod *v1.Pod, volume string, source *v1.ServiceAccountTokenProjection, now time.Time, files payload) error {
	key := volume + "/" + source.Path
	issued := v.issued[key]
	if !now.Before(issued.renew) {
		request := authenticationv1.TokenRequestSpec{
			ExpirationSeconds: source.ExpirationSeconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}
		if source.Audience != "" {
			request.Audiences = []string{source.Audience}
		}
		status, err := v.tokens.Token(ctx, pod, request)
		switch {
		case err == nil:
			// At four fifths of its life, as the kubelet does.
			issued = issuedToken{token: status.Token, renew: now.Add(status.ExpirationTimestamp.Sub(now) * 4 / 5)}
			v.issued[key] = issued
		case issued.token == "":
			return err
		}
	}
	files[source.Path] = volumeutil.FileProjection{Data: []byte(issued.token), Mode: 0o600}
	return nil
}

func downward(pod *v1.Pod, items []v1.DownwardAPIVolumeFile, ip string, mode int32, files payload) error {
	for _, item := range items {
		var value string
		var err error
		if item.FieldRef != nil {
			value, err = podField(pod, ip, item.FieldRef.FieldPath)
		} else {
			value, err = resource.ExtractResourceValueByContainerName(item.ResourceFieldRef, pod, item.ResourceFieldRef.ContainerName)
		}
		if err != nil {
			return err
		}
		files[item.Path] = volumeutil.FileProjection{Data: []byte(value), Mode: mode}
	}
	return nil
}

// podView knows the mounts of all containers, for text that several of them may read. Where two containers mount different volumes
// at one path, the first one's counts.
func podView(pod *v1.Pod, volumes *volumes, ip string) view {
	var mounts []mount
	seen := map[string]bool{}
	for _, container := range append(append([]v1.Container{}, pod.Spec.Containers...), pod.Spec.InitContainers...) {
		for _, one := range containerMounts(pod, &container, volumes, nil) {
			if !seen[one.Inside] {
				seen[one.Inside] = true
				mounts = append(mounts, one)
			}
		}
	}
	return newView(mounts, ip)
}

// containerMounts are the container's volumeMounts as directories of this machine.
func containerMounts(pod *v1.Pod, container *v1.Container, volumes *volumes, variables map[string]string) []mount {
	var mounts []mount
	for _, wanted := range container.VolumeMounts {
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			if volume.Name != wanted.Name {
				continue
			}
			sub := wanted.SubPath
			if wanted.SubPathExpr != "" {
				sub = expand([]string{wanted.SubPathExpr}, variables)[0]
			}
			mounts = append(mounts, mount{Inside: wanted.MountPath, Outside: filepath.Join(volumes.path(volume), sub)})
		}
	}
	return mounts
}

// serviceAccountPath is where every client library looks for its credentials.
const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// kubeconfig writes a kubeconfig for the credentials that the view has at the well-known path, which no process can see here; "" where
// the container has none.
func kubeconfig(view view, path, server, namespace string) (string, error) {
	credentials := view.rewrite(serviceAccountPath)
	if credentials == serviceAccountPath {
		return "", nil
	}
	lines := []string{
		"apiVersion: v1", "kind: Config", "current-context: pod",
		"clusters: [{name: pod, cluster: {server: " + quote(server) + ", certificate-authority: " + quote(credentials+"/ca.crt") + "}}]",
		"users: [{name: pod, user: {tokenFile: " + quote(credentials+"/token") + "}}]",
		"contexts: [{name: pod, context: {cluster: pod, user: pod, namespace: " + quote(namespace) + "}}]", "",
	}
	return path, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600)
}

// quote for YAML.
func quote(text string) string { return fmt.Sprintf("%q", text) }

// clientTokens asks the API server.
type clientTokens struct{ kubelet *Kubelet }

func (c clientTokens) Token(ctx context.Context, pod *v1.Pod, spec authenticationv1.TokenRequestSpec) (authenticationv1.TokenRequestStatus, error) {
	request := &authenticationv1.TokenRequest{Spec: spec}
	answer, err := c.kubelet.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenRequestStatus{}, err
	}
	return answer.Status, nil
}
