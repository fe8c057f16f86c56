package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Images says which binary runs for an image, by the last part of the image's repository.
type Images map[string]string

// ParseImages reads NAME=BINARY.
func ParseImages(specs []string) (Images, error) {
	images := Images{}
	for _, spec := range specs {
		name, binary, found := strings.Cut(spec, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--image %q is not NAME=BINARY", spec)
		}
		path, err := filepath.Abs(binary)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("--image %s: %w", spec, err)
		}
		images[name] = path
	}
	return images, nil
}

// imageName is the last part of an image's repository: "headroom" for registry.example:5000/team/headroom:v1@sha256:….
func imageName(image string) string {
	repository, _, _ := strings.Cut(image, "@")
	name := repository[strings.LastIndex(repository, "/")+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}

// argv is what runs for a container whose command and args are already expanded. The mapped binary takes the place of the image's
// entry point; a command that names it by its base name means it too.
func (i Images) argv(image string, command, args []string) ([]string, error) {
	name := imageName(image)
	binary, mapped := i[name]
	switch {
	case len(command) == 0 && !mapped:
		return nil, fmt.Errorf("image %s: nothing to run: give the container a command, or the kubelet --image %s=BINARY", image, name)
	case len(command) == 0:
		command = []string{binary}
	case mapped && (filepath.Base(command[0]) == name || filepath.Base(command[0]) == filepath.Base(binary)):
		command = append([]string{binary}, command[1:]...)
	}
	return append(append([]string{}, command...), args...), nil
}

// policyRestarts says whether a container that ended with the exit code is started again.
func policyRestarts(policy v1.RestartPolicy, exit int) bool {
	return policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && exit != 0
}
