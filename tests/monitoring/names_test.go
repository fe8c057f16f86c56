package monitoring

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"
)

// exceptions is exceptions.yaml: names with the reason why they are one.
type exceptions struct{ Unused, Others, Rare map[string]string }

func excepted(t *testing.T) exceptions {
	t.Helper()
	content, err := os.ReadFile("exceptions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var known exceptions
	if err := yaml.UnmarshalStrict(content, &known); err != nil {
		t.Fatal(err)
	}
	return known
}

// read are the families that rules and dashboards read, and where each is read.
func read(t *testing.T, documented map[string]bool) map[string]string {
	t.Helper()
	expressions, err := Expressions()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]string{}
	for _, one := range expressions {
		for _, name := range Names(one.Text) {
			families[Family(name, documented)] = one.Where
		}
	}
	return families
}

func TestWhatIsReadIsDocumentedAndWhatIsDocumentedIsRead(t *testing.T) {
	documented, err := Documented()
	if err != nil {
		t.Fatal(err)
	}
	if len(documented) < 60 {
		t.Fatalf("only %d metrics were found in docs/metrics.md: are its tables written otherwise?", len(documented))
	}
	rules, err := LoadRules(alerts)
	if err != nil {
		t.Fatal(err)
	}
	known, families := excepted(t), read(t, documented)
	for family, where := range families {
		recorded := slices.ContainsFunc(rules, func(rule Rule) bool { return rule.Record == family })
		if !documented[family] && !recorded && known.Others[family] == "" {
			t.Errorf("%s: %s is not in docs/metrics.md", where, family)
		}
	}
	for name := range documented {
		if families[name] == "" && known.Unused[name] == "" {
			t.Errorf("%s is documented, and no dashboard or alert reads it", name)
		}
		if families[name] != "" && known.Unused[name] != "" {
			t.Errorf("%s is read in %s: it is no exception", name, families[name])
		}
	}
	for name := range known.Unused {
		if !documented[name] {
			t.Errorf("the exception %s is not documented", name)
		}
	}
	for name := range known.Rare {
		if !documented[name] {
			t.Errorf("%s, which is rare, is not documented", name)
		}
	}
	for name := range known.Others {
		if families[name] == "" {
			t.Errorf("nothing reads %s, which others write", name)
		}
	}
}

var (
	module   = regexp.MustCompile(`(?s)\n    pub mod controller \{.*?\n    \}`)
	constant = regexp.MustCompile(`: &str =\s+"(\w+)"`)
)

// cluster.prom stands for what only a cluster brings forth: it must be what the controller writes, all of it.
func TestThePageOfTheClusterHasTheControllersMetrics(t *testing.T) {
	source, err := os.ReadFile("../../names/src/lib.rs")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("cluster.prom")
	if err != nil {
		t.Fatal(err)
	}
	written := PageFamilies(string(page))
	for name := range excepted(t).Others {
		delete(written, name)
	}
	constants := constant.FindAllStringSubmatch(module.FindString(string(source)), -1)
	if len(constants) < 20 {
		t.Fatalf("only %d names were found in names::metric::controller", len(constants))
	}
	for _, found := range constants {
		name := "headroom_" + found[1]
		if !written[name] && !written[name+"_total"] {
			t.Errorf("%s is not on the page", name)
		}
		delete(written, name)
		delete(written, name+"_total")
	}
	for name := range written {
		t.Errorf("%s is on the page, and the controller writes no such metric", name)
	}
}

func TestDashboardsAreWhole(t *testing.T) {
	dashboards, err := LoadDashboards()
	if err != nil {
		t.Fatal(err)
	}
	if len(dashboards) < 3 {
		t.Fatalf("%d dashboards", len(dashboards))
	}
	seen := map[string]bool{}
	for _, dashboard := range dashboards {
		if seen[dashboard.UID] || dashboard.UID == "" || dashboard.Title == "" {
			t.Errorf("%s: the uid %q and the title %q must be there, and the uid be its own", dashboard.File, dashboard.UID, dashboard.Title)
		}
		seen[dashboard.UID] = true
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, panel := range dashboard.Panels {
			where := dashboard.File + ": " + panel.Title
			if ids[panel.ID] || panel.Title == "" {
				t.Errorf("%s: id %d is another panel's, or the title is missing", where, panel.ID)
			}
			ids[panel.ID] = true
			if panel.Type != "row" && (panel.Description == "" || panel.Type != "text" && (len(panel.Targets) == 0 || panel.FieldConfig.Defaults.Unit == "")) {
				t.Errorf("%s: a description, a query and a unit are missing", where)
			}
			at := panel.GridPos
			if at.W < 1 || at.X+at.W > 24 {
				t.Errorf("%s: %+v does not fit the grid", where, at)
			}
			for x := at.X; x < at.X+at.W; x++ {
				for y := at.Y; y < at.Y+at.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Errorf("%s lies over %s", where, other)
					}
					taken[[2]int{x, y}] = panel.Title
				}
			}
		}
	}
}
