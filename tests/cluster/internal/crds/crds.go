// Package crds applies CustomResourceDefinitions.
package crds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	clientv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// ThirdParty stands for the CRDs that the build put beside the binary.
const ThirdParty = "third-party"

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
	wanted := map[string]bool{}
	applying, inApplying := errgroup.WithContext(ctx)
	for _, path := range paths {
		found, err := read(path)
		if err != nil {
			return err
		}
		for _, crd := range found {
			wanted[crd.Name] = true
			applying.Go(func() error {
				if err := apply(inApplying, api, crd); err != nil {
					return fmt.Errorf("%s: %w", crd.Name, err)
				}
				return nil
			})
		}
	}
	if err := applying.Wait(); err != nil {
		return err
	}
	return await(ctx, api, wanted)
}

// apply makes or replaces one CRD. Not by server-side apply: for large schemas that takes the API server several times as long.
func apply(ctx context.Context, api clientv1.CustomResourceDefinitionInterface, wanted *apiextensionsv1.CustomResourceDefinition) error {
	_, err := api.Create(ctx, wanted, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		present, err := api.Get(ctx, wanted.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		wanted.ResourceVersion = present.ResourceVersion
		_, err = api.Update(ctx, wanted, metav1.UpdateOptions{})
		return err
	})
}

// await watches until the API serves all of them.
func await(ctx context.Context, api clientv1.CustomResourceDefinitionInterface, wanted map[string]bool) error {
	for len(wanted) > 0 {
		watching, err := api.Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("%v are not established: %w", slices.Sorted(maps.Keys(wanted)), err)
		}
		for event := range watching.ResultChan() {
			if crd, ok := event.Object.(*apiextensionsv1.CustomResourceDefinition); ok && established(crd) {
				delete(wanted, crd.Name)
			}
			if len(wanted) == 0 {
				watching.Stop()
			}
		}
	}
	return nil
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
