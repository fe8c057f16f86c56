package kubelet

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// probeKind in the order in which the kinds matter.
type probeKind int

const (
	startupProbe probeKind = iota
	readinessProbe
	livenessProbe
)

func (k probeKind) String() string { return [...]string{"Startup", "Readiness", "Liveness"}[k] }

// schedule is one probe's plan and what it has found so far. Pure: the time comes from the caller.
type schedule struct {
	probe   *v1.Probe
	due     time.Time
	passing bool
	// count of consecutive results that differ from passing.
	count int32
}

func newSchedule(probe *v1.Probe, started time.Time, passing bool) *schedule {
	if probe == nil {
		return nil
	}
	return &schedule{probe: probe, due: started.Add(seconds(probe.InitialDelaySeconds)), passing: passing}
}

// observe counts a result; it is true when passing has changed, or for what passed from the beginning, has been refuted.
func (s *schedule) observe(success bool, now time.Time) (changed bool) {
	s.due = now.Add(seconds(max(s.probe.PeriodSeconds, 1)))
	if success == s.passing {
		s.count = 0
		return false
	}
	s.count++
	threshold := s.probe.FailureThreshold
	if success {
		threshold = s.probe.SuccessThreshold
	}
	if s.count < max(threshold, 1) {
		return false
	}
	s.passing, s.count = success, 0
	return true
}

// probes of one run of a container, in Kubernetes' order: the startup probe first, alone; then readiness and liveness.
type probes struct {
	startup, readiness, liveness *schedule
	// startupFailures in a row; the startup probe fails for good at its threshold.
	startupFailures int32
	failed          probeKind
	hasFailed       bool
	stopping        bool
}

func newProbes(container *v1.Container, started time.Time) *probes {
	return &probes{
		startup:   newSchedule(container.StartupProbe, started, false),
		readiness: newSchedule(container.ReadinessProbe, started, false),
		liveness:  newSchedule(container.LivenessProbe, started, true),
	}
}

// started is true once the startup probe has passed, or at once without one.
func (p *probes) started() bool { return p.startup == nil || p.startup.passing }

// ready is true once started and while the readiness probe passes, or without one.
func (p *probes) ready() bool { return p.started() && (p.readiness == nil || p.readiness.passing) }

// broken says which probe demands a restart.
func (p *probes) broken() (probeKind, bool) { return p.failed, p.hasFailed }

// next is the probe that is due first; false where none will be.
func (p *probes) next() (kind probeKind, due time.Time, ok bool) {
	if !p.started() {
		return startupProbe, p.startup.due, !p.stopping
	}
	if p.readiness != nil {
		kind, due, ok = readinessProbe, p.readiness.due, true
	}
	if p.liveness != nil && !p.stopping && (!ok || p.liveness.due.Before(due)) {
		kind, due, ok = livenessProbe, p.liveness.due, true
	}
	return kind, due, ok
}

// of gives the probe to run.
func (p *probes) of(kind probeKind) *v1.Probe { return p.schedule(kind).probe }

func (p *probes) schedule(kind probeKind) *schedule {
	return [...]*schedule{p.startup, p.readiness, p.liveness}[kind]
}

// observe takes a probe's result.
func (p *probes) observe(kind probeKind, success bool, now time.Time) {
	changed := p.schedule(kind).observe(success, now)
	switch {
	case p.stopping:
	case kind == startupProbe && success:
		p.startupFailures = 0
	case kind == startupProbe:
		p.startupFailures++
		if p.startupFailures >= max(p.startup.probe.FailureThreshold, 1) {
			p.failed, p.hasFailed = startupProbe, true
		}
	case kind == livenessProbe && changed && !success:
		p.failed, p.hasFailed = livenessProbe, true
	}
}

// stop is called when the process is about to end: nothing can demand a restart any more, readiness goes on.
func (p *probes) stop() { p.stopping = true }

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }
