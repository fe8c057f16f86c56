package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

// metadata is the part of `cargo metadata --format-version 1` that a bill of materials is made of.
type metadata struct {
	Packages []crate `json:"packages"`
	Resolve  struct {
		Nodes []node `json:"nodes"`
	} `json:"resolve"`
}

type crate struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Version string  `json:"version"`
	License string  `json:"license"`
	Source  *string `json:"source"`
}

type node struct {
	ID   string `json:"id"`
	Deps []struct {
		Package string `json:"pkg"`
		Kinds   []struct {
			Kind *string `json:"kind"`
		} `json:"dep_kinds"`
	} `json:"deps"`
}

// bill is the SPDX document of everything that is linked into `root`: normal dependencies, not those of builds and tests.
func bill(path, root string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var found metadata
	if err := json.Unmarshal(content, &found); err != nil {
		return nil, fmt.Errorf("%s is not what cargo metadata prints: %w", path, err)
	}
	crates := map[string]crate{}
	start := ""
	for _, one := range found.Packages {
		crates[one.ID] = one
		if one.Name == root {
			start = one.ID
		}
	}
	if start == "" {
		return nil, fmt.Errorf("%s has no package %s", path, root)
	}
	linked := reach(start, found.Resolve.Nodes)
	return render(crates[start], crates, linked)
}

// reach is what can be reached from start by normal dependencies: package → its dependencies, both in order.
func reach(start string, nodes []node) map[string][]string {
	edges := map[string][]string{}
	for _, one := range nodes {
		for _, dependency := range one.Deps {
			for _, kind := range dependency.Kinds {
				if kind.Kind == nil {
					edges[one.ID] = append(edges[one.ID], dependency.Package)
					break
				}
			}
		}
		sort.Strings(edges[one.ID])
	}
	linked, open := map[string][]string{}, []string{start}
	for len(open) > 0 {
		next := open[0]
		open = open[1:]
		if _, seen := linked[next]; seen {
			continue
		}
		linked[next] = edges[next]
		open = append(open, edges[next]...)
	}
	return linked
}

func render(root crate, crates map[string]crate, linked map[string][]string) ([]byte, error) {
	ids := make([]string, 0, len(linked))
	for id := range linked {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	document := &spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      root.Name + "-" + root.Version,
		DocumentNamespace: "https://headroom.dev/spdx/" + root.Name + "-" + root.Version,
		CreationInfo: &spdx.CreationInfo{
			Created:  "1970-01-01T00:00:00Z",
			Creators: []spdx.Creator{{CreatorType: "Tool", Creator: "make image"}},
		},
		Relationships: []*spdx.Relationship{{
			RefA: common.MakeDocElementID("", "DOCUMENT"), RefB: common.MakeDocElementID("", element(root)), Relationship: "DESCRIBES",
		}},
	}
	for _, id := range ids {
		one := crates[id]
		document.Packages = append(document.Packages, &spdx.Package{
			PackageName:             one.Name,
			PackageSPDXIdentifier:   spdx.ElementID(element(one)),
			PackageVersion:          one.Version,
			PackageDownloadLocation: "NOASSERTION",
			PackageLicenseConcluded: "NOASSERTION",
			PackageLicenseDeclared:  license(one.License),
			PackageCopyrightText:    "NOASSERTION",
			PackageExternalReferences: []*spdx.PackageExternalReference{{
				Category: "PACKAGE-MANAGER", RefType: "purl", Locator: "pkg:cargo/" + one.Name + "@" + one.Version,
			}},
		})
		for _, dependency := range linked[id] {
			document.Relationships = append(document.Relationships, &spdx.Relationship{
				RefA: common.MakeDocElementID("", element(one)), RefB: common.MakeDocElementID("", element(crates[dependency])), Relationship: "DEPENDS_ON",
			})
		}
	}
	var out bytes.Buffer
	err := spdxjson.Write(document, &out, spdxjson.Indent(" "))
	return out.Bytes(), err
}

// element is a crate's name in the document: letters, digits, dots and dashes only.
func element(one crate) string {
	clean := func(r rune) rune {
		if r == '_' || r == '+' {
			return '-'
		}
		return r
	}
	return "Package-" + strings.Map(clean, one.Name+"-"+one.Version)
}

// license is the expression as SPDX writes it; crates also write "MIT/Apache-2.0".
func license(expression string) string {
	if expression == "" {
		return "NOASSERTION"
	}
	return strings.ReplaceAll(expression, "/", " OR ")
}
