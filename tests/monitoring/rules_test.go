package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// situation is a page of cases.yaml: what fires an alert, and what is just not enough.
type situation struct {
	Alert, At, Step string
	Fires, Quiet    map[string]string
}

func situations(t *testing.T) []situation {
	t.Helper()
	content, err := os.ReadFile("cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []situation
	if err := yaml.UnmarshalStrict(content, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func raised(t *testing.T) []Rule {
	t.Helper()
	rules, err := LoadRules(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var all []Rule
	for _, rule := range rules {
		if rule.Alert != "" {
			all = append(all, rule)
		}
	}
	return all
}

// tool is the path of one of Prometheus' programs: of those that make builds, else of those installed. Without it the
// test is skipped, and fails in CI.
func tool(t *testing.T, name string) string {
	t.Helper()
	if built := os.Getenv("HEADROOM_PROMETHEUS"); built != "" {
		return filepath.Join(built, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return missing(t, name+": make monitoring-test")
	}
	return path
}

func missing(t *testing.T, what string) string {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("not run: needs " + what)
	}
	t.Skip("not run: needs " + what)
	return ""
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	if output, err := exec.Command(tool(t, "promtool"), "check", "rules", alerts).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

type object = map[string]any

func TestEveryAlertHasACase(t *testing.T) {
	tested := map[string]bool{}
	for _, one := range situations(t) {
		tested[one.Alert] = true
		if len(one.Fires) == 0 || len(one.Quiet) == 0 {
			t.Errorf("%s needs both, what fires it and what does not", one.Alert)
		}
	}
	for _, rule := range raised(t) {
		if !tested[rule.Alert] {
			t.Errorf("%s is not in cases.yaml", rule.Alert)
		}
		delete(tested, rule.Alert)
	}
	for name := range tested {
		t.Errorf("%s is in cases.yaml and no alert", name)
	}
}

// Each alert, in promtool's own words: it fires, and it does not.
func TestEveryAlertFiresAndDoesNot(t *testing.T) {
	promtool := tool(t, "promtool")
	rules, err := LoadRules(alerts)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range situations(t) {
		t.Run(one.Alert, func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			write(t, directory, "rules.yaml", object{"groups": []object{{"name": one.Alert, "rules": needed(rules, one.Alert)}}})
			write(t, directory, "cases.yaml", object{
				"rule_files": []string{"rules.yaml"}, "evaluation_interval": one.step(),
				"tests": []object{one.promtool(one.Fires, true), one.promtool(one.Quiet, false)},
			})
			run := exec.Command(promtool, "test", "rules", "cases.yaml")
			run.Dir = directory
			if output, err := run.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
		})
	}
}

// needed are the rules that an alert rests on, and the alert.
func needed(rules []Rule, alert string) []object {
	wanted := map[string]bool{alert: true}
	var chosen []object
	for _, rule := range slices.Backward(rules) {
		if !wanted[rule.Name()] {
			continue
		}
		for _, name := range Names(rule.Expr) {
			wanted[name] = true
		}
		one := object{"expr": rule.Expr}
		if rule.Record != "" {
			one["record"] = rule.Record
		} else {
			one["alert"], one["labels"], one["annotations"] = rule.Alert, rule.Labels, rule.Annotations
			if rule.For != "" {
				one["for"] = rule.For
			}
		}
		chosen = append(chosen, one)
	}
	slices.Reverse(chosen)
	return chosen
}

func (s situation) step() string {
	if s.Step == "" {
		return "1m"
	}
	return s.Step
}

func (s situation) promtool(series map[string]string, fires bool) object {
	var input []object
	for name, values := range series {
		input = append(input, object{"series": name, "values": values})
	}
	expected := []object{}
	if fires {
		expected = append(expected, object{"labels": "{}", "value": 1})
	}
	return object{
		"interval": s.step(), "input_series": input,
		"promql_expr_test": []object{{
			"expr": `group(ALERTS{alertname="` + s.Alert + `",alertstate="firing"})`, "eval_time": s.At, "exp_samples": expected,
		}},
	}
}

func write(t *testing.T, directory, name string, content object) {
	t.Helper()
	text, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, name), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

var heading = regexp.MustCompile(`(?m)^### (\w+)$`)

// Whoever is woken finds out what it means and what to do.
func TestEveryAlertHasARunbook(t *testing.T) {
	text, err := os.ReadFile(docs + "/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(string(text), -1) {
		described[found[1]] = true
	}
	for _, rule := range raised(t) {
		if want := "docs/alerts.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook"] != want {
			t.Errorf("%s: the runbook is %q, not %q", rule.Alert, rule.Annotations["runbook"], want)
		}
		if !described[rule.Alert] {
			t.Errorf("docs/alerts.md has no heading %s", rule.Alert)
		}
		delete(described, rule.Alert)
		for _, annotation := range []string{"summary", "description"} {
			if rule.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", rule.Alert, annotation)
			}
		}
		switch rule.Labels["severity"] {
		case "critical", "warning", "info":
		default:
			t.Errorf("%s: severity %q is not critical, warning or info", rule.Alert, rule.Labels["severity"])
		}
	}
	for name := range described {
		t.Errorf("docs/alerts.md describes %s, which is no alert", name)
	}
}
