package kubelet

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

var epoch = time.Unix(1000, 0)

func at(second int) time.Time { return epoch.Add(time.Duration(second) * time.Second) }

// expectNext fails unless the probe of that kind is due then.
func expectNext(t *testing.T, plan *probes, kind probeKind, second int) {
	t.Helper()
	gotKind, due, ok := plan.next()
	if !ok || gotKind != kind || !due.Equal(at(second)) {
		t.Fatalf("next is %s after %s (%v), not %s after %ds", gotKind, due.Sub(epoch), ok, kind, second)
	}
}

func TestWithoutProbesAContainerIsReady(t *testing.T) {
	plan := newProbes(&v1.Container{}, epoch)
	if _, _, ok := plan.next(); ok || !plan.started() || !plan.ready() {
		t.Fatal("a container without probes is not ready")
	}
}

func TestStartupComesFirst(t *testing.T) {
	plan := newProbes(&v1.Container{
		StartupProbe:   &v1.Probe{PeriodSeconds: 2, FailureThreshold: 3},
		ReadinessProbe: &v1.Probe{InitialDelaySeconds: 1, PeriodSeconds: 5, SuccessThreshold: 2, FailureThreshold: 2},
		LivenessProbe:  &v1.Probe{InitialDelaySeconds: 10, PeriodSeconds: 10, FailureThreshold: 2},
	}, epoch)
	expectNext(t, plan, startupProbe, 0)
	plan.observe(startupProbe, false, at(0))
	expectNext(t, plan, startupProbe, 2)
	if plan.started() || plan.ready() {
		t.Fatal("started before the startup probe passed")
	}
	plan.observe(startupProbe, true, at(2))
	expectNext(t, plan, readinessProbe, 1)
	plan.observe(readinessProbe, true, at(3))
	if plan.ready() {
		t.Fatal("ready after one of two successes")
	}
	expectNext(t, plan, readinessProbe, 8)
	plan.observe(readinessProbe, true, at(8))
	if !plan.ready() {
		t.Fatal("not ready after two successes")
	}
	expectNext(t, plan, livenessProbe, 10)
	plan.observe(livenessProbe, true, at(10))
	expectNext(t, plan, readinessProbe, 13)
	plan.observe(readinessProbe, false, at(13))
	plan.observe(readinessProbe, true, at(18))
	plan.observe(readinessProbe, false, at(23))
	if !plan.ready() {
		t.Fatal("failures that are not in a row count")
	}
	plan.observe(readinessProbe, false, at(28))
	if plan.ready() {
		t.Fatal("ready after two failures in a row")
	}
}

func TestBrokenContainers(t *testing.T) {
	slow := newProbes(&v1.Container{StartupProbe: &v1.Probe{FailureThreshold: 2}}, epoch)
	slow.observe(startupProbe, false, at(0))
	if _, broken := slow.broken(); broken {
		t.Fatal("broken after one of two failures")
	}
	slow.observe(startupProbe, false, at(1))
	if kind, broken := slow.broken(); !broken || kind != startupProbe {
		t.Fatal("not broken after the startup probe's last failure")
	}
	dead := newProbes(&v1.Container{LivenessProbe: &v1.Probe{FailureThreshold: 1}}, epoch)
	dead.observe(livenessProbe, false, at(0))
	if kind, broken := dead.broken(); !broken || kind != livenessProbe {
		t.Fatal("not broken after a failed liveness probe")
	}
}

func TestAStoppingContainerIsOnlyAskedForReadiness(t *testing.T) {
	plan := newProbes(&v1.Container{
		ReadinessProbe: &v1.Probe{InitialDelaySeconds: 5}, LivenessProbe: &v1.Probe{FailureThreshold: 1},
	}, epoch)
	expectNext(t, plan, livenessProbe, 0)
	plan.stop()
	// A liveness probe under way still answers.
	plan.observe(livenessProbe, false, at(1))
	if _, broken := plan.broken(); broken {
		t.Fatal("a container that stops is to be restarted")
	}
	expectNext(t, plan, readinessProbe, 5)
	starting := newProbes(&v1.Container{StartupProbe: &v1.Probe{}}, epoch)
	starting.stop()
	if _, _, ok := starting.next(); ok {
		t.Fatal("a container that stops is still probed for its start")
	}
}
