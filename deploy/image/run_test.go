package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// patience is how long something that must come is waited for.
const patience = 60 * time.Second

func opened(t *testing.T) (string, v1.ImageIndex) {
	t.Helper()
	content, err := os.ReadFile(archive(t))
	if err != nil {
		t.Fatal(err)
	}
	directory := unpack(t, string(content))
	outer, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return directory, index
}

func imageOf(t *testing.T, index v1.ImageIndex, platform string) v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range manifest.Manifests {
		if one.Platform.String() == platform {
			image, err := index.Image(one.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}
	t.Fatalf("the archive has no image for %s", platform)
	return nil
}

// imageRoot is a directory with the image's files and nothing else.
func imageRoot(t *testing.T) string {
	t.Helper()
	_, index := opened(t)
	root := t.TempDir()
	// Its own user must be able to enter, whatever the mask.
	for _, directory := range []string{filepath.Dir(root), root} {
		if err := os.Chmod(directory, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	reader := tar.NewReader(mutate.Extract(imageOf(t, index, "linux/amd64")))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Mode&0o022 != 0 {
			t.Fatalf("%s belongs to %d:%d with mode %o: only root may change the image's files", header.Name, header.Uid, header.Gid, header.Mode)
		}
		path := filepath.Join(root, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, header.FileInfo().Mode())
		} else {
			err = place(path, reader, header.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func place(path string, content io.Reader, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

func TestEveryDigestHoldsAndTheBillNamesTheImage(t *testing.T) {
	directory, index := opened(t)
	blobs, err := os.ReadDir(filepath.Join(directory, "blobs/sha256"))
	if err != nil || len(blobs) < 4 {
		t.Fatal(len(blobs), err)
	}
	for _, blob := range blobs {
		content, err := os.ReadFile(filepath.Join(directory, "blobs/sha256", blob.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != blob.Name() {
			t.Errorf("blob %s has the digest %x", blob.Name(), sum)
		}
	}
	image := imageOf(t, index, "linux/amd64")
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	bill, err := imageOf(t, index, "unknown/unknown").Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if bill.Subject == nil || bill.Subject.Digest != digest || bill.Layers[0].MediaType != sbomType {
		t.Errorf("the bill of materials is of %+v, not of %s", bill.Subject, digest)
	}
	content, err := os.ReadFile(filepath.Join(directory, "blobs/sha256", bill.Layers[0].Digest.Hex))
	if err != nil {
		t.Fatal(err)
	}
	for _, crate := range []string{"pkg:cargo/kube@", "pkg:cargo/rustls@", "pkg:cargo/epp-core@"} {
		if !strings.Contains(string(content), crate) {
			t.Errorf("%s… is not in the bill of materials", crate)
		}
	}
}

func TestTheImageRunsAsNobodyInParticularFromOneFile(t *testing.T) {
	_, index := opened(t)
	config, err := imageOf(t, index, "linux/amd64").ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/headroom"}) {
		t.Fatalf("%+v", config.Config)
	}
	if title, version := config.Config.Labels["org.opencontainers.image.title"], config.Config.Labels["org.opencontainers.image.version"]; title != "headroom" || version == "" {
		t.Fatalf("%v", config.Config.Labels)
	}
	one := pod{root: imageRoot(t), uid: 65532, gid: 65532}
	seal(t, one.root, nil)
	output := &log{}
	if err := one.command(output, "--version").Run(); err != nil || output.String() != "headroom "+config.Config.Labels["org.opencontainers.image.version"]+"\n" {
		t.Fatal(output, err)
	}
}

func TestTheSimulatorAnswersACompletion(t *testing.T) {
	one := pod{root: imageRoot(t), uid: 65532, gid: 65532}
	seal(t, one.root, nil)
	_, ended := one.start(t, "simulate", "server", "--startup", "0", "--model", "test")
	until(t, ended, "/health", func() error { return get("http://127.0.0.1:8000/health") })
	answer, err := http.Post("http://127.0.0.1:8000/v1/completions", "application/json", strings.NewReader(`{"model": "test", "prompt": "hello", "max_tokens": 5}`))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var completion struct {
		Choices []struct{ Text string }
		Usage   struct {
			Tokens int `json:"completion_tokens"`
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&completion); err != nil || completion.Usage.Tokens != 5 || completion.Choices[0].Text == "" {
		t.Fatal(answer.Status, completion, err)
	}
}

func TestTheChartsPickersAnswerTheirProbesAndFindTheAPIServerByName(t *testing.T) {
	archive(t)
	serveNames(t)
	server := serveAPI(t)
	objects := rendered(t)
	for _, deployment := range []struct{ namespace, name, asks string }{
		{"headroom", "llama-epp", "/apis/inference.networking.k8s.io/v1/namespaces/headroom/inferencepools"},
		{"other", "plain-epp", "/api/v1/namespaces/other/pods"},
	} {
		t.Run(deployment.name, func(t *testing.T) {
			one := podOf(t, objects, deployment.namespace, deployment.name, server)
			_, ended := one.start(t, one.args...)
			until(t, ended, "liveness", func() error { return serving("liveness") })
			if err := serving("readiness"); err == nil {
				t.Error("ready although nothing could be read")
			}
			until(t, ended, "/healthz", func() error { return get("http://127.0.0.1:9090/healthz") })
			server.awaits(t, ended, deployment.asks)
		})
	}
}

func TestTheChartsControllerAnswersItsProbesAndFindsTheAPIServerByName(t *testing.T) {
	archive(t)
	serveNames(t)
	server := serveAPI(t)
	one := podOf(t, rendered(t), "headroom", "headroom-controller", server)
	_, ended := one.start(t, one.args...)
	until(t, ended, "/livez", func() error { return get("https://127.0.0.1:6443/livez") })
	server.awaits(t, ended, "/apis/headroom.dev/v1alpha1/modelscalers")
}

func TestWithoutAClusterTheErrorSaysWhereOneWasLookedFor(t *testing.T) {
	archive(t)
	server := apiServer{}
	for _, deployment := range []string{"llama-epp", "headroom-controller"} {
		one := podOf(t, rendered(t), "headroom", deployment, server)
		one.env = slices.DeleteFunc(one.env, func(variable string) bool { return strings.HasPrefix(variable, "KUBERNETES_") })
		output := &log{}
		run := one.command(output, one.args...)
		if err := run.Run(); err == nil || !strings.Contains(output.String(), "KUBECONFIG") {
			t.Errorf("%s: %v\n%s", deployment, err, output)
		}
	}
}

// awaits waits until the pod has asked for a path that begins so.
func (s apiServer) awaits(t *testing.T, ended <-chan error, path string) {
	t.Helper()
	seen := map[string]bool{}
	limit := time.After(patience)
	for {
		select {
		case asked := <-s.asked:
			if seen[asked] = true; strings.HasPrefix(asked, path) {
				return
			}
		case err := <-ended:
			t.Fatalf("it ended before it asked for %s: %v", path, err)
		case <-limit:
			t.Fatalf("nothing asked for %s, but for %v", path, seen)
		}
	}
}

// until tries again until it succeeds, the process has ended or patience has.
func until(t *testing.T, ended <-chan error, what string, try func() error) {
	t.Helper()
	limit := time.After(patience)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case ended := <-ended:
			t.Fatalf("it ended before %s answered: %v", what, ended)
		case <-limit:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		// Whose certificate it is is not what is tested, and a kubelet's probe does not ask either.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

func serving(service string) error {
	connection, err := grpc.NewClient("127.0.0.1:9003", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(limited, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s: %s", service, answer.Status)
	}
	return nil
}
