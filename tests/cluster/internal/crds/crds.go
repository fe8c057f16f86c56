// Package crds applies CustomResourceDefinitions.
package crds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

// ThirdParty stands for the CRDs that the build put beside the binary.
const ThirdParty = "third-party"

// establishedPoll is how often a CRD is looked at until the API serves it.
const establishedPoll = 50 * time.Millisecond

// Resolve gives the directory or file that a --crds argument means.
func Resolve(path string) (string, error) {
	if path != ThirdParty {
		return path, nil
	}
	binary, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(binary), "crds"), nil
}

// Apply applies every CRD under the paths and waits until all are served. Other kinds in the files are left out.
func Apply(ctx context.Context, config *rest.Config, paths []string) (names []string, err error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := apiextensions.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	api := client.ApiextensionsV1().CustomResourceDefinitions()
	for _, path := range paths {
		documents, err := read(path)
		if err != nil {
			return nil, err
		}
		for name, document := range documents {
			force := true
			options := metav1.PatchOptions{FieldManager: "test-cluster", Force: &force}
			if _, err := api.Patch(ctx, name, types.ApplyPatchType, document, options); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			names = append(names, name)
		}
	}
	for _, name := range names {
		for {
			crd, err := api.Get(ctx, name, metav1.GetOptions{})
			if err == nil && established(crd) {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("%s is not established: %w", name, ctx.Err())
			case <-time.After(establishedPoll):
			}
		}
	}
	return names, nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			return condition.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

// read gives the CRDs of a file, or of a directory and what is below it, as JSON by name.
func read(path string) (map[string][]byte, error) {
	documents := map[string][]byte{}
	err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !yamlFile(file) {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := split(text, documents); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return nil
	})
	if err == nil && len(documents) == 0 {
		err = fmt.Errorf("%s holds no CustomResourceDefinition", path)
	}
	return documents, err
}

func yamlFile(path string) bool {
	return strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml") || strings.HasSuffix(path, ".json")
}

// split puts the CRDs of a YAML stream into documents. A status in a file is dropped: it is not ours to set.
func split(text []byte, documents map[string][]byte) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object map[string]any
		if err := decoder.Decode(&object); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		metadata, _ := object["metadata"].(map[string]any)
		name, _ := metadata["name"].(string)
		if object["kind"] != "CustomResourceDefinition" || name == "" {
			continue
		}
		delete(object, "status")
		document, err := json.Marshal(object)
		if err != nil {
			return err
		}
		documents[name] = document
	}
}
