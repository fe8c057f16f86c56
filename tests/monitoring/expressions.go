// Package monitoring holds the alert rules and dashboards of the chart against what the programs write and the documents
// say. Its tests are what it is for.
package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	chart   = "../../deploy/charts/headroom/files"
	docs    = "../../docs"
	alerts  = chart + "/alerts.yaml"
	metrics = docs + "/metrics.md"
)

// Rules is a rule file of Prometheus, which is the `spec` of a PrometheusRule too.
type Rules struct {
	Groups []struct {
		Name  string
		Rules []Rule
	}
}

// Rule records a series or raises an alert.
type Rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// Name is the series' or the alert's.
func (r Rule) Name() string { return r.Record + r.Alert }

// LoadRules reads a rule file, refusing what is not in one.
func LoadRules(path string) ([]Rule, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file Rules
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var rules []Rule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules, nil
}

// Dashboard is what the tests read of a Grafana dashboard.
type Dashboard struct {
	UID, Title, File string
	Panels           []Panel
	Templating       struct {
		List []struct {
			Name, Type, Query string
			AllValue          string
		}
	}
}

// Panel is one of a dashboard; rows have no targets.
type Panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ Expr, LegendFormat, RefID string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

// LoadDashboards reads every dashboard of the chart.
func LoadDashboards() ([]Dashboard, error) {
	paths, err := filepath.Glob(chart + "/dashboards/*.json")
	if err != nil {
		return nil, err
	}
	var all []Dashboard
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		one := Dashboard{File: filepath.Base(path)}
		if err := json.Unmarshal(content, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// Expression is one query and where it stands.
type Expression struct{ Where, Text string }

var variable = regexp.MustCompile(`\$[a-z]\w*`)

// Expressions are those of every rule, dashboard panel and dashboard variable, with Grafana's variables filled in.
func Expressions() ([]Expression, error) {
	rules, err := LoadRules(alerts)
	if err != nil {
		return nil, err
	}
	dashboards, err := LoadDashboards()
	if err != nil {
		return nil, err
	}
	var all []Expression
	for _, rule := range rules {
		all = append(all, Expression{rule.Name(), rule.Expr})
	}
	for _, dashboard := range dashboards {
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				text := strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")
				text = variable.ReplaceAllString(text, ".*")
				where := fmt.Sprintf("%s: %s (panel %d)", dashboard.File, panel.Title, panel.ID)
				all = append(all, Expression{where, text})
			}
		}
		for _, list := range dashboard.Templating.List {
			if inside, found := strings.CutPrefix(list.Query, "label_values("); found {
				text := inside[:strings.LastIndex(inside, ",")]
				text = variable.ReplaceAllString(text, ".*")
				all = append(all, Expression{dashboard.File + ": $" + list.Name, text})
			}
		}
	}
	return all, nil
}

// What stands in an expression beside metric names, operators and numbers: strings and selectors, label lists, functions.
var (
	inside  = regexp.MustCompile(`"(\\.|[^"\\])*"|\[[^]]*\]`)
	braces  = regexp.MustCompile(`\{[^}]*\}`)
	lists   = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	applied = regexp.MustCompile(`\b[a-z0-9_]+\s*\(`)
	words   = regexp.MustCompile(`\b[a-zA-Z_:][a-zA-Z0-9_:]*`)
)

// Names are the metrics that an expression reads. Whether it is one at all is for Prometheus to say.
func Names(expression string) []string {
	for _, pattern := range []*regexp.Regexp{inside, braces, lists, applied} {
		expression = pattern.ReplaceAllString(expression, " ")
	}
	var names []string
	for _, word := range words.FindAllString(expression, -1) {
		operator := slices.Contains([]string{"and", "or", "unless", "offset", "bool", "group_left", "group_right"}, word)
		if !operator && !slices.Contains(names, word) {
			names = append(names, word)
		}
	}
	return names
}

// Family is the name under which a series is documented: without what a histogram adds.
func Family(name string, documented map[string]bool) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, found := strings.CutSuffix(name, suffix); found && documented[base] {
			return base
		}
	}
	return name
}

var row = regexp.MustCompile("(?m)^\\| `([a-z0-9_:]+)` \\| (counter|gauge|histogram) \\|")

// Documented are the metrics in the tables of docs/metrics.md.
func Documented() (map[string]bool, error) {
	content, err := os.ReadFile(metrics)
	if err != nil {
		return nil, err
	}
	documented := map[string]bool{}
	for _, found := range row.FindAllStringSubmatch(string(content), -1) {
		documented[found[1]] = true
	}
	return documented, nil
}

var declared = regexp.MustCompile(`(?m)^# TYPE (\S+) (\w+)$`)

// PageFamilies are the metrics that a page declares, as Prometheus stores them: counters end in _total.
func PageFamilies(page string) map[string]bool {
	families := map[string]bool{}
	for _, found := range declared.FindAllStringSubmatch(page, -1) {
		name := found[1]
		if found[2] == "counter" && !strings.HasSuffix(name, "_total") {
			name += "_total"
		}
		families[name] = true
	}
	return families
}
