// Command thirdparty takes the CRDs of other projects out of their Go modules, into a directory that is not part of this repository.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// modules with the directory of their CRDs. The sum is that of the whole module, as go.sum has it.
var modules = []struct{ path, version, sum, directory string }{
	{"github.com/prometheus-operator/prometheus-operator", "v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", "example/prometheus-operator-crd"},
	{"sigs.k8s.io/gateway-api", "v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=", "config/crd/standard"},
	{"github.com/kedacore/keda/v2", "v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=", "config/crd/bases"},
}

func main() {
	out := flag.String("o", "", "directory to write to")
	flag.Parse()
	if *out == "" {
		fail(fmt.Errorf("-o is missing"))
	}
	for _, module := range modules {
		source, err := download(module.path+"@"+module.version, module.sum)
		if err == nil {
			err = convert(filepath.Join(source, module.directory), filepath.Join(*out, filepath.Base(strings.TrimSuffix(module.path, "/v2"))))
		}
		if err != nil {
			fail(fmt.Errorf("%s: %w", module.path, err))
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "thirdparty:", err)
	os.Exit(1)
}

// download gives the module's directory in the module cache.
func download(module, sum string) (string, error) {
	command := exec.Command("go", "mod", "download", "-json", module)
	// Outside of any module: what is fetched here is no dependency of the binary.
	command.Dir = os.TempDir()
	command.Stderr = os.Stderr
	output, err := command.Output()
	var answer struct{ Dir, Sum, Error string }
	if json.Unmarshal(output, &answer) == nil && answer.Error != "" {
		return "", fmt.Errorf("%s", answer.Error)
	}
	if err != nil {
		return "", err
	}
	if answer.Sum != sum {
		return "", fmt.Errorf("its sum is %s instead of %s", answer.Sum, sum)
	}
	return answer.Dir, nil
}

// convert writes every CRD among the YAML files as JSON without descriptions.
func convert(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no YAML in %s", from)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var object map[string]any
		if err := yaml.Unmarshal(text, &object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if object["kind"] != "CustomResourceDefinition" {
			continue
		}
		concise, err := json.Marshal(withoutDescriptions(object))
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml") + ".json"
		if err := os.WriteFile(filepath.Join(to, name), append(concise, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withoutDescriptions leaves out what makes up most of a CRD, and of the time that the API server takes to serve it.
func withoutDescriptions(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if _, text := inner.(string); key == "description" && text {
				delete(value, key)
			} else if key != "default" && key != "enum" {
				value[key] = withoutDescriptions(inner)
			}
		}
	case []any:
		for i := range value {
			value[i] = withoutDescriptions(value[i])
		}
	}
	return value
}
