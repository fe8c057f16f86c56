package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// counting issues a numbered token that is good for ten minutes, unless it is away.
type counting struct {
	issued int
	away   bool
	now    time.Time
}

func (c *counting) Token(context.Context, *v1.Pod, authenticationv1.TokenRequestSpec) (authenticationv1.TokenRequestStatus, error) {
	if c.away {
		return authenticationv1.TokenRequestStatus{}, errors.New("away")
	}
	c.issued++
	return authenticationv1.TokenRequestStatus{Token: strings.Repeat("t", c.issued), ExpirationTimestamp: metav1.NewTime(c.now.Add(10 * time.Minute))}, nil
}

func mountingPod() *v1.Pod {
	pod := aPod.DeepCopy()
	pod.Spec.Volumes = []v1.Volume{
		{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}}},
		{Name: "keys", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "keys", Items: []v1.KeyToPath{{Key: "tls.key", Path: "deep/key"}}}}},
		{Name: "account", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
		}}}},
	}
	pod.Spec.Containers = []v1.Container{{Name: "a", VolumeMounts: []v1.VolumeMount{
		{Name: "config", MountPath: "/etc/app"}, {Name: "keys", MountPath: "/keys"}, {Name: "account", MountPath: serviceAccountPath},
		{Name: "scratch", MountPath: "/data", SubPathExpr: "of-$(NAME)"},
	}}}
	return pod
}

func content(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVolumes(t *testing.T) {
	root, pod, source := t.TempDir(), mountingPod(), &counting{now: epoch}
	objects := stored{"settings": {"app.yaml": "key: /keys/deep/key\nlisten: 0.0.0.0:1\n"}, "keys": {"tls.key": "0.0.0.0", "tls.crt": "c"}}
	made := newVolumes(root, objects, source)
	sync := func(now time.Time) {
		t.Helper()
		if err := made.sync(context.Background(), pod, "127.9.0.2", now); err != nil {
			t.Fatal(err)
		}
	}
	sync(epoch)
	if got, want := content(t, root, "config", "app.yaml"), "key: "+root+"/keys/deep/key\nlisten: 127.9.0.2:1\n"; got != want {
		t.Errorf("the ConfigMap's text is %q, not %q", got, want)
	}
	if got := content(t, root, "keys", "deep", "key"); got != "0.0.0.0" {
		t.Errorf("a Secret was rewritten to %q", got)
	}
	if _, err := os.Stat(filepath.Join(root, "keys", "tls.crt")); err == nil {
		t.Error("a key that is not among the items is there")
	}
	if got := content(t, root, "account", "namespace"); got != "shop" {
		t.Errorf("the namespace is %q", got)
	}

	// What changes is replaced; a token only when four fifths of its life are over, and kept when none can be had.
	objects["keys"]["tls.key"] = "new"
	sync(epoch.Add(7 * time.Minute))
	if key, token := content(t, root, "keys", "deep", "key"), content(t, root, "account", "token"); key != "new" || token != "t" {
		t.Errorf("after 7 minutes the key is %q and the token %q", key, token)
	}
	source.away = true
	sync(epoch.Add(9 * time.Minute))
	if token := content(t, root, "account", "token"); token != "t" {
		t.Errorf("without an API server the token is %q", token)
	}
	source.away = false
	sync(epoch.Add(9 * time.Minute))
	if token := content(t, root, "account", "token"); token != "tt" {
		t.Errorf("after 9 minutes the token is %q", token)
	}
}

func TestMountsOfAContainer(t *testing.T) {
	root, pod := t.TempDir(), mountingPod()
	made := newVolumes(root, stored{}, &counting{})
	seen := newView(containerMounts(pod, &pod.Spec.Containers[0], made, map[string]string{"NAME": "web"}), "127.9.0.2")
	if got, want := seen.rewrite("/data/x"), root+"/scratch/of-web/x"; got != want {
		t.Errorf("got %s, not %s", got, want)
	}
	path, err := kubeconfig(seen, filepath.Join(root, "kubeconfig"), "https://127.0.0.1:1", "shop")
	if err != nil || !strings.Contains(content(t, path), `tokenFile: "`+root+`/account/token"`) {
		t.Errorf("%v: %s", err, content(t, path))
	}
	bare := newView(nil, "127.9.0.2")
	if path, err := kubeconfig(bare, filepath.Join(root, "none"), "", ""); path != "" || err != nil {
		t.Errorf("a container without credentials got %s, %v", path, err)
	}
}

func TestWhatCannotBeMountedIsNamed(t *testing.T) {
	made := newVolumes(t.TempDir(), stored{}, &counting{away: true})
	for want, source := range map[string]v1.VolumeSource{
		"only configMap": {NFS: &v1.NFSVolumeSource{}},
		`"gone"`:         {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "gone"}}},
		"away":           {Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}}}}},
	} {
		pod := aPod.DeepCopy()
		pod.Spec.Volumes = []v1.Volume{{Name: "odd", VolumeSource: source}}
		err := made.sync(context.Background(), pod, "", epoch)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "volume odd") {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
