package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long something that must come is waited for.
const patience = 3 * time.Minute

// demoPorts are the demo's, and Prometheus' own above them.
const demoPorts = 40

// Every expression of the rules and dashboards, asked of a real Prometheus that scrapes the live demo: an endpoint picker,
// its controller and the engines that it starts. cluster.prom stands for what only a cluster brings forth.
func TestEveryExpressionHoldsAgainstTheDemo(t *testing.T) {
	prometheus := tool(t, "prometheus")
	headroom, envoy := os.Getenv("HEADROOM_BIN"), os.Getenv("HEADROOM_ENVOY")
	if headroom == "" || envoy == "" {
		missing(t, "HEADROOM_BIN and HEADROOM_ENVOY: make monitoring-test")
	}
	first := freePorts(t, demoPorts)
	startDemo(t, headroom, envoy, first)
	page := servePage(t)
	base := startPrometheus(t, prometheus, first, page)
	for _, sign := range []string{
		`sum(rate(llm_d_epp_request_ttft_seconds_count[1m])) > 0`, `sum(rate(headroom_predictor_labels[1m])) > 0`,
		`sum(headroom_replica_changes_total) > 0`, `sum(llm_d_epp_request_slo_violation_total) > 0`, `sum(llm_d_epp_request_error_total) > 0`,
	} {
		await(t, sign, func() error {
			provoke(first)
			samples, err := query(base, sign)
			if err == nil && len(samples) == 0 {
				err = fmt.Errorf("not so yet")
			}
			return err
		})
	}
	present := namesOf(t, base)
	expressions, err := Expressions()
	if err != nil {
		t.Fatal(err)
	}
	// A panel may ask several ways: for a cluster and for one machine.
	answered, unread := map[string]bool{}, map[string]string{}
	for _, one := range expressions {
		samples, err := query(base, one.Text)
		if err != nil {
			t.Errorf("%s: %v\n%s", one.Where, err, one.Text)
		}
		dashboard := strings.Contains(one.Where, ".json: ")
		there := !slices.ContainsFunc(Names(one.Text), func(name string) bool { return !present[name] })
		if dashboard && there && len(samples) == 0 {
			unread[one.Where] = one.Text
		}
		answered[one.Where] = answered[one.Where] || len(samples) > 0
	}
	for where, text := range unread {
		if !answered[where] {
			t.Errorf("%s shows nothing although all that it reads is there: %s", where, text)
		}
	}
	healthy(t, base)
	declaredSomewhere(t, first)
}

// provoke sends a request that the model server refuses: there is no error to be shown otherwise.
func provoke(first int) {
	answer, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/v1/completions", first), "application/json",
		strings.NewReader(`{"model": "none of this name", "prompt": "x", "max_tokens": 1}`))
	if err == nil {
		answer.Body.Close()
	}
}

// declaredSomewhere holds every metric that is read or documented against the pages themselves, and what the demo's pages
// declare against the document.
func declaredSomewhere(t *testing.T, first int) {
	t.Helper()
	documented, err := Documented()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := os.ReadFile("cluster.prom")
	if err != nil {
		t.Fatal(err)
	}
	demo := append(fetch(t, first+1), fetch(t, first+20)...)
	for family := range PageFamilies(string(demo)) {
		if !documented[family] {
			t.Errorf("%s is on a page of the demo and not in docs/metrics.md", family)
		}
	}
	families := PageFamilies(string(append(pages, demo...)))
	rules, err := LoadRules(alerts)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		families[rule.Record] = true
	}
	families["up"] = true
	for name := range excepted(t).Rare {
		families[name] = true
	}
	for family, where := range read(t, documented) {
		if !families[family] {
			t.Errorf("%s: %s is on no page", where, family)
		}
	}
	for family := range documented {
		if !families[family] {
			t.Errorf("docs/metrics.md: %s is on no page", family)
		}
	}
}

func fetch(t *testing.T, port int) []byte {
	t.Helper()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	return text
}

func startDemo(t *testing.T, headroom, envoy string, first int) {
	t.Helper()
	run := exec.Command(headroom, "demo", "--live-only", "--keep", "--envoy", envoy, "--port", fmt.Sprint(first),
		"--rates", "4:5s,24:235s", "--slo-ttft-ms", "60", "--shorten", "16", "--startup", "1s", "--max", "3", "--report", filepath.Join(t.TempDir(), "demo.html"))
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// Registered first, seen last: whatever the demo started has gone with it.
	t.Cleanup(func() {
		await(t, "the end of the demo's processes", func() error {
			if !allFree(first, demoPorts) {
				return fmt.Errorf("something still listens on a port from %d on", first)
			}
			return nil
		})
	})
	// It ends its servers and its proxy itself, and says whether it was done (0) or interrupted (130).
	start(t, run, syscall.SIGINT, 0, 130)
}

// startPrometheus scrapes the demo every second, and the page with the labels that it has.
func startPrometheus(t *testing.T, prometheus string, first int, page string) string {
	t.Helper()
	rules, err := filepath.Abs(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var engines []string
	for port := first + 20; port < first+30; port++ {
		engines = append(engines, fmt.Sprintf("127.0.0.1:%d", port))
	}
	directory := t.TempDir()
	job := func(name string, targets ...string) object {
		return object{"job_name": name, "honor_labels": true, "static_configs": []object{{"targets": targets}}}
	}
	write(t, directory, "prometheus.yml", object{
		"global":         object{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{rules},
		"scrape_configs": []object{job("headroom", fmt.Sprintf("127.0.0.1:%d", first+1)), job("engines", engines...), job("cluster", page)},
	})
	address := fmt.Sprintf("127.0.0.1:%d", first+35)
	run := exec.Command(prometheus, "--config.file", filepath.Join(directory, "prometheus.yml"), "--storage.tsdb.path", directory,
		"--web.listen-address", address)
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start(t, run, syscall.SIGTERM, 0)
	base := "http://" + address
	await(t, "Prometheus", func() error {
		answer, err := http.Get(base + "/-/ready")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", answer.Status)
		}
		return nil
	})
	return base
}

// start runs a program until the test ends, and shows what it said if the test fails. It must obey the signal and end
// with one of the codes.
func start(t *testing.T, run *exec.Cmd, end syscall.Signal, codes ...int) {
	t.Helper()
	var lock sync.Mutex
	var said bytes.Buffer
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	run.Stdout, run.Stderr = writer, writer
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	go func() {
		part := make([]byte, 64<<10)
		for {
			length, err := reader.Read(part)
			lock.Lock()
			said.Write(part[:length])
			lock.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = run.Process.Signal(end)
		waited := make(chan error, 1)
		go func() { waited <- run.Wait() }()
		select {
		case err := <-waited:
			if !slices.Contains(codes, run.ProcessState.ExitCode()) {
				t.Errorf("%s ended with %v, not with a code of %v", filepath.Base(run.Path), err, codes)
			}
		case <-time.After(30 * time.Second):
			_ = run.Process.Kill()
			t.Errorf("%s does not end on %v", filepath.Base(run.Path), end)
		}
		reader.Close()
		if t.Failed() {
			lock.Lock()
			defer lock.Unlock()
			text := said.String()
			fmt.Fprintf(os.Stderr, "%s said at last:\n%s\n", filepath.Base(run.Path), text[max(0, len(text)-4000):])
		}
	})
}

func servePage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("cluster.prom")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = answer.Write(page)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Shutdown(context.Background()) })
	return listener.Addr().String()
}

// freePorts finds so many ports in a row that nothing listens on, and returns the first.
func freePorts(t *testing.T, count int) int {
	t.Helper()
	for first := 21000; first < 31000; first += count {
		if allFree(first, count) {
			return first
		}
	}
	t.Fatal("no row of free ports was found")
	return 0
}

func allFree(first, count int) bool {
	for port := first; port < first+count; port++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		listener.Close()
	}
	return true
}

func await(t *testing.T, what string, try func() error) {
	t.Helper()
	limit := time.After(patience)
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// ask gets a page of Prometheus' API into `data`, or its error.
func ask(base, path string, parameters url.Values, data any) error {
	answer, err := http.Get(base + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var told struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&told); err != nil {
		return err
	}
	if told.Status != "success" {
		return fmt.Errorf("%s", told.Error)
	}
	return json.Unmarshal(told.Data, data)
}

func query(base, expression string) ([]json.RawMessage, error) {
	var found struct{ Result []json.RawMessage }
	err := ask(base, "/api/v1/query", url.Values{"query": {expression}}, &found)
	return found.Result, err
}

func namesOf(t *testing.T, base string) map[string]bool {
	t.Helper()
	var names []string
	if err := ask(base, "/api/v1/label/__name__/values", nil, &names); err != nil {
		t.Fatal(err)
	}
	present := map[string]bool{}
	for _, name := range names {
		present[name] = true
	}
	return present
}

// healthy waits for every rule to have been evaluated, which none may fail.
func healthy(t *testing.T, base string) {
	t.Helper()
	await(t, "evaluation of the rules", func() error {
		var loaded struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := ask(base, "/api/v1/rules", nil, &loaded); err != nil {
			return err
		}
		count := 0
		for _, group := range loaded.Groups {
			for _, rule := range group.Rules {
				if count++; rule.Health != "ok" {
					return fmt.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError)
				}
			}
		}
		if rules, err := LoadRules(alerts); err != nil || count != len(rules) {
			return fmt.Errorf("%d rules of %d are loaded: %v", count, len(rules), err)
		}
		return nil
	})
}
