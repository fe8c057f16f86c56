package main

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

const cargo = `{"packages": [
 {"id": "h", "name": "headroom", "version": "0.1.0", "license": "Apache-2.0"},
 {"id": "s", "name": "serde", "version": "1.0.0", "license": "MIT/Apache-2.0"},
 {"id": "t", "name": "tempfile", "version": "3.0.0", "license": "MIT"}],
 "resolve": {"nodes": [{"id": "h", "deps": [
  {"pkg": "s", "dep_kinds": [{"kind": null}]}, {"pkg": "t", "dep_kinds": [{"kind": "dev"}]}]}, {"id": "s", "deps": []}, {"id": "t", "deps": []}]}}`

func inputs(t *testing.T) (string, string) {
	t.Helper()
	directory := t.TempDir()
	for name, content := range map[string]string{"headroom": "a binary", "metadata.json": cargo} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(directory, "headroom"), filepath.Join(directory, "metadata.json")
}

func TestBothPlatformsAndTheirBillsAreInTheArchiveAndItIsTheSameEveryTime(t *testing.T) {
	binary, metadata := inputs(t)
	var archives [2]string
	for i := range archives {
		out := filepath.Join(t.TempDir(), "image.tar")
		if err := write(out, "0.1.0", "", metadata, binaries{"linux/amd64": binary, "linux/arm64": binary}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives[i] = string(content)
	}
	if archives[0] != archives[1] {
		t.Fatal("the same inputs gave different archives")
	}
	index, err := layout.ImageIndexFromPath(unpack(t, archives[0]))
	if err != nil {
		t.Fatal(err)
	}
	outer, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := inner.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, one := range manifest.Manifests {
		platforms = append(platforms, one.Platform.String())
	}
	if !slices.Equal(platforms, []string{"linux/amd64", "unknown/unknown", "linux/arm64", "unknown/unknown"}) {
		t.Fatal(platforms)
	}
	image, err := inner.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/headroom"}) {
		t.Fatalf("%+v", config.Config)
	}
}

func TestABillNamesWhatIsLinkedAndNothingElse(t *testing.T) {
	_, metadata := inputs(t)
	document, err := bill(metadata, "headroom")
	if err != nil {
		t.Fatal(err)
	}
	text := string(document)
	if !strings.Contains(text, "pkg:cargo/serde@1.0.0") || !strings.Contains(text, "MIT OR Apache-2.0") || strings.Contains(text, "tempfile") {
		t.Fatal(text)
	}
	if _, err := bill(metadata, "other"); err == nil {
		t.Fatal("a missing package was accepted")
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	built := binaries{}
	if err := built.Set("target/release/headroom"); err == nil || !strings.Contains(err.Error(), "linux/amd64=") {
		t.Fatal(err)
	}
	if err := write("x.tar", "0.1.0", "", "", binaries{"linux/amd64": "/does/not/exist"}); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, archive string) string {
	t.Helper()
	directory := t.TempDir()
	reader := tar.NewReader(strings.NewReader(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return directory
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(directory, header.Name)
		if header.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
