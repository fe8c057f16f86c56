package crds

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	directory := t.TempDir()
	text := "kind: CustomResourceDefinition\nmetadata: {name: a.example.com}\nstatus: {conditions: [{type: Established}]}\n---\nkind: Deployment\nmetadata: {name: b}\n---\n"
	if err := os.MkdirAll(filepath.Join(directory, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{"below/a.yaml": text, "notes.txt": "not: [yaml"} {
		if err := os.WriteFile(filepath.Join(directory, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := read(directory)
	if err != nil || len(found) != 1 || found[0].Name != "a.example.com" || len(found[0].Status.Conditions) != 0 {
		t.Fatalf("%v, %v", found, err)
	}
	if _, err := read(filepath.Join(directory, "notes.txt")); err == nil {
		t.Error("a path without a CRD is no error")
	}
}
