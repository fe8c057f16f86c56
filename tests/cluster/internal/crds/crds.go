// Package crds applies CustomResourceDefinitions.
package crds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	clientv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

// ThirdParty stands for the CRDs that the build put beside the binary.
const ThirdParty = "third-party"

// establishedPoll is how often a CRD is looked at until the API serves it.
const establishedPoll = 200 * time.Millisecond

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
func Apply(ctx context.Context, config *rest.Config, paths []string) error {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := apiextensions.NewForConfig(config)
	if err != nil {
		return err
	}
	api := client.ApiextensionsV1().CustomResourceDefinitions()
	applying, ctx := errgroup.WithContext(ctx)
	for _, path := range paths {
		found, err := read(path)
		if err != nil {
			return err
		}
		for _, crd := range found {
			applying.Go(func() error {
				if err := apply(ctx, api, crd); err != nil {
					return fmt.Errorf("%s: %w", crd.Name, err)
				}
				return nil
			})
		}
	}
	return applying.Wait()
}

// apply makes or replaces one CRD and waits until the API serves it. Not by server-side apply: for large schemas that takes the API
// server several times as long.
func apply(ctx context.Context, api clientv1.CustomResourceDefinitionInterface, wanted *apiextensionsv1.CustomResourceDefinition) error {
	crd, err := api.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var present *apiextensionsv1.CustomResourceDefinition
		if present, err = api.Get(ctx, wanted.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		wanted.ResourceVersion = present.ResourceVersion
		crd, err = api.Update(ctx, wanted, metav1.UpdateOptions{})
	}
	for err == nil && !established(crd) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not established: %w", ctx.Err())
		case <-time.After(establishedPoll):
			crd, err = api.Get(ctx, wanted.Name, metav1.GetOptions{})
		}
	}
	return err
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			return condition.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

// read gives the CRDs of a file, or of a directory and what is below it.
func read(path string) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var found []*apiextensionsv1.CustomResourceDefinition
	err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !yamlFile(file) {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		inFile, err := split(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, inFile...)
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s holds no CustomResourceDefinition", path)
	}
	return found, err
}

func yamlFile(path string) bool {
	return strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml") || strings.HasSuffix(path, ".json")
}

// split gives the CRDs of a YAML stream. A status in a file is dropped: it is not ours to set.
func split(text []byte) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var found []*apiextensionsv1.CustomResourceDefinition
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := decoder.Decode(crd); err != nil {
			if errors.Is(err, io.EOF) {
				return found, nil
			}
			return nil, err
		}
		if crd.Kind == "CustomResourceDefinition" {
			crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
			found = append(found, crd)
		}
	}
}
