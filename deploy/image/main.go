// Image writes an OCI image layout of one static binary, for several platforms, without a container engine.
//
//	image -out headroom.tar -version 0.1.0 -certificates /etc/ssl/certs/ca-certificates.crt \
//	  -metadata metadata.json -binary linux/amd64=target/…/headroom -binary linux/arm64=target/…/headroom
//
// The same inputs give the same digests: no time, no owner, no order of a file system reaches the image.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user runs the binary: "nonroot" of the usual minimal images.
const user = "65532"

const sbomType = types.MediaType("application/spdx+json")

type binaries map[string]string

func (b binaries) String() string { return fmt.Sprint(map[string]string(b)) }

func (b binaries) Set(text string) error {
	platform, path, found := strings.Cut(text, "=")
	if !found || !strings.Contains(platform, "/") {
		return fmt.Errorf("%q is not OS/ARCHITECTURE=FILE, such as linux/amd64=target/release/headroom", text)
	}
	b[platform] = path
	return nil
}

func main() {
	built := binaries{}
	out := flag.String("out", "headroom.tar", "the archive to write")
	version := flag.String("version", "", "version, for the label and the reference name")
	certificates := flag.String("certificates", "", "CA certificates for /etc/ssl/certs; none if empty")
	cargo := flag.String("metadata", "", "what `cargo metadata` prints: every image gets a bill of materials made from it; none if empty")
	flag.Var(built, "binary", "PLATFORM=FILE, once per platform")
	flag.Parse()
	if err := write(*out, *version, *certificates, *cargo, built); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(out, version, certificates, cargo string, built binaries) error {
	if len(built) == 0 || version == "" {
		return errors.New("give -version and at least one -binary PLATFORM=FILE")
	}
	var sbom []byte
	if cargo != "" {
		var err error
		if sbom, err = bill(cargo, "headroom"); err != nil {
			return err
		}
	}
	index, err := build(version, certificates, sbom, built)
	if err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if err := writeLayout(directory, version, index); err != nil {
		return err
	}
	archive, err := os.Create(out + ".part")
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := pack(archive, directory); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s: headroom:%s %s\n", out, version, digest)
	return os.Rename(out+".part", out)
}

func build(version, certificates string, sbom []byte, built binaries) (v1.ImageIndex, error) {
	platforms := make([]string, 0, len(built))
	for platform := range built {
		platforms = append(platforms, platform)
	}
	sort.Strings(platforms)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range platforms {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		image, err := image(version, certificates, built[name], *platform)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		if sbom == nil {
			continue
		}
		attached, err := attach(image, sbom)
		if err != nil {
			return nil, fmt.Errorf("%s: SBOM: %w", name, err)
		}
		unknown := &v1.Platform{OS: "unknown", Architecture: "unknown"}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: attached, Descriptor: v1.Descriptor{Platform: unknown}})
	}
	return index, nil
}

func image(version, certificates, binary string, platform v1.Platform) (v1.Image, error) {
	files := []file{
		{name: "headroom", from: binary, mode: 0o755},
		{name: "etc/passwd", content: "headroom:x:" + user + ":" + user + "::/:/headroom\n", mode: 0o644},
		{name: "etc/nsswitch.conf", content: "hosts: files dns\n", mode: 0o644},
	}
	if certificates != "" {
		files = append(files, file{name: "etc/ssl/certs/ca-certificates.crt", from: certificates, mode: 0o644})
	}
	layer, err := layer(files)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	filled, err := mutate.Append(base, mutate.Addendum{Layer: layer, MediaType: types.OCILayer})
	if err != nil {
		return nil, err
	}
	config := &v1.ConfigFile{
		OS:           platform.OS,
		Architecture: platform.Architecture,
		Variant:      platform.Variant,
		Config: v1.Config{
			User:       user + ":" + user,
			Entrypoint: []string{"/headroom"},
			Labels: map[string]string{
				"org.opencontainers.image.title":    "headroom",
				"org.opencontainers.image.version":  version,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
	}
	parts, err := filled.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.RootFS, config.History = parts.RootFS, []v1.History{{CreatedBy: "make image"}}
	return mutate.ConfigFile(filled, config)
}

type file struct {
	name, from, content string
	mode                int64
}

func layer(files []file) (v1.Layer, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	made := map[string]bool{}
	for _, one := range files {
		content := []byte(one.content)
		if one.from != "" {
			var err error
			if content, err = os.ReadFile(one.from); err != nil {
				return nil, err
			}
		}
		if err := directories(writer, made, filepath.Dir(one.name)); err != nil {
			return nil, err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: one.name, Mode: one.mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

// directories adds the parents of a file, each once.
func directories(writer *tar.Writer, made map[string]bool, name string) error {
	if name == "." || made[name] {
		return nil
	}
	if err := directories(writer, made, filepath.Dir(name)); err != nil {
		return err
	}
	made[name] = true
	return writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

// attach makes the artifact that refers to the image and holds its bill of materials.
func attach(image v1.Image, content []byte) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), sbomType)
	filled, err := mutate.Append(base, mutate.Addendum{Layer: static.NewLayer(content, sbomType), MediaType: sbomType})
	if err != nil {
		return nil, err
	}
	digest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	size, err := image.Size()
	if err != nil {
		return nil, err
	}
	subject := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size}
	return mutate.Subject(filled, subject).(v1.Image), nil
}

func writeLayout(directory, version string, index v1.ImageIndex) error {
	path, err := layout.Write(directory, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "headroom:" + version}))
}

// pack puts the layout into an archive, names in order.
func pack(out io.Writer, directory string) error {
	writer := tar.NewWriter(out)
	err := filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == directory {
			return err
		}
		name, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		_, err = writer.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	return writer.Close()
}
